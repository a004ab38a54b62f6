"""The commands of `sits-model` as functions."""
