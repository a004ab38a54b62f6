"""Addresses as they may be published: without user, password, query and fragment, any of which may be a secret."""

from __future__ import annotations

import re
from typing import Any

from sits_catalog.nesting import check_nesting

__all__ = ["published", "published_text", "without_secrets"]

_STARTS_AS_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*://")
_NEXT = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Where a link of a chained address of fsspec begins, such as zip://a.tif::https://example.org/a.zip."""
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")


def without_secrets(address: str) -> str:
    """An address without user, password, query and fragment; a local path as it is.

    >>> without_secrets("https://me:word@example.org/a/B02.tif?sig=abc#part")
    'https://example.org/a/B02.tif'
    >>> without_secrets("https://me:w#rd@example.org/a")
    'https://example.org/a'
    >>> without_secrets("zip://a.tif::https://me:word@example.org/a.zip?sig=abc")
    'zip://a.tif::https://example.org/a.zip'
    """
    return "::".join(map(_link, _NEXT.split(address)))


def _link(address: str) -> str:
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    # The user first: a password may hold what would begin a query.
    authority, slash, path = rest.partition("/")
    shown = re.split(r"[?#]", f"{authority.rpartition('@')[2]}{slash}{path}", maxsplit=1)[0]
    return f"{scheme}://{shown}"


def published_text(text: str) -> str:
    """A text whose addresses hold no secrets.

    >>> published_text("see ftp://me:word@example.org/a, and more")
    'see ftp://example.org/a, and more'
    """
    if _STARTS_AS_URL.match(text):
        return without_secrets(text)
    return _URL.sub(lambda found: without_secrets(found[0]), text)


def published(document: Any) -> Any:
    """A JSON value with every address in it cleaned; an `href` loses its query even where it is relative.

    Raises ValueError where it is nested without end.
    """
    check_nesting(document)
    return _published(document)


def _published(document: Any) -> Any:
    if isinstance(document, dict):
        return {
            key: re.split(r"[?#]", without_secrets(value), maxsplit=1)[0]
            if key == "href" and isinstance(value, str)
            else _published(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [_published(value) for value in document]
    return published_text(document) if isinstance(document, str) else document
