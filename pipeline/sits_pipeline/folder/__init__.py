"""A dataset's folder, on this machine or behind an fsspec URL: small files, written whole or not at all."""

from sits_pipeline.folder.disk import CannotWrite, write_errors_in_words
from sits_pipeline.folder.folder import PART_BYTES, Folder
from sits_pipeline.folder.lock import sync_folder
from sits_pipeline.folder.remote import storage_options

__all__ = ["PART_BYTES", "CannotWrite", "Folder", "storage_options", "sync_folder", "write_errors_in_words"]
