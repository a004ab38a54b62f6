"""Published datasets in their original formats, brought into a dataset of the profile `patches`."""
