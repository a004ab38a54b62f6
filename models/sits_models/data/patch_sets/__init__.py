"""Datasets of many small places: the profile `patches`, and folders of published datasets."""
