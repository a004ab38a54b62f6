"""Addresses of parcels as sentences, notes and reports may show them: without user, password and signature."""

from __future__ import annotations

import re

from sits_catalog.addresses import published_text, without_secrets

__all__ = ["cause", "cleaned", "shown"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_VSI_OPTIONS = re.compile(r"(/vsi[a-z0-9_]+)\?.*", re.DOTALL)


def shown(path: str) -> str:
    """What names a path or address for the user; a local path as it is.

    >>> shown("/vsicurl/https://me:word@example.org/a.gpkg?sig=abc")
    '/vsicurl/https://example.org/a.gpkg'
    """
    # GDAL takes options, and an address among them, as /vsicurl?url=...
    path = _VSI_OPTIONS.sub(r"\1", path)
    found = _ADDRESS.search(path)
    return path if found is None else path[: found.start()] + without_secrets(path[found.start() :])


def cleaned(text: object, path: str) -> str:
    """What a library says about `path`, on one line, without the secrets of that or any other address."""
    words = " ".join(str(text).split()).replace(path, shown(path))
    found = _ADDRESS.search(path)
    if found is not None and shown(path) != path:
        # A library may take the address apart, so that its parts stand alone.
        address = path[found.end() :]
        user, at, _ = re.split(r"[/?#]", address, maxsplit=1)[0].rpartition("@")
        for secret in (*re.split(r"[?#]", address, maxsplit=1)[1:], user if at else ""):
            words = words.replace(secret, "...") if secret else words
    return published_text(words)


def cause(error: BaseException, path: str) -> BaseException | None:
    """The error that a sentence comes from; None where `path` has secrets, which its own text may hold."""
    return error if shown(path) == path else None
