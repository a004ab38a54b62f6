"""The few-label protocol: a grid of finetunings with parts of the labels, its rows, tables and curves."""
