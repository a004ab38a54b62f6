"""Asks a STAC API for its items, page by page, through pystac-client and our own HTTP layer."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

import pystac
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from pystac_client.warnings import PystacClientWarning

from sits_catalog.addresses import published_text, without_secrets
from sits_pipeline.sources.base import ServiceDown, SourceError
from sits_pipeline.sources.catalogue import MAX_ITEMS, MAX_JSON_BYTES
from sits_pipeline.sources.documents import Ration, check_item
from sits_pipeline.sources.web import Web, is_web
from sits_pipeline.values import JsonObject

__all__ = ["search_items"]

_MAX_PAGES = 10_000
_NOT_AS_EXPECTED = (
    *(APIError, ClientTypeError, pystac.STACError, Warning),
    *(ValueError, LookupError, TypeError, AttributeError, RecursionError),
)
"""What pystac and pystac-client raise on documents that are not what they should be."""


def search_items(
    root: str,
    web: Web,
    *,
    collection: str,
    bbox: tuple[float, float, float, float],
    span: str,
    page_size: int,
) -> list[JsonObject]:
    """Every item of a collection in a box (W, S, E, N in degrees) and a time span ("first/last"), as it was sent.

    Nothing else is asked of the server, not even where it claims QUERY or FILTER (docs/decisions/0009): the newest
    processing of a granule is chosen before clouds and baselines are looked at, so that a filter of the server would
    change pixels; and a server that does not claim them may answer a query with nothing at all, as rustac does.

    Raises SourceError with one sentence where the API cannot be searched to its end, ServiceDown where it does not
    answer.
    """
    try:
        return _search(root, web, collection=collection, bbox=bbox, span=span, page_size=page_size)
    except SourceError:
        raise
    except ConnectionError as error:
        raise ServiceDown(f"the STAC API {_short(root)} cannot be searched: {error}") from error
    except OSError as error:
        raise SourceError(f"the STAC API {_short(root)} cannot be searched: {error.strerror or error}") from error
    except _NOT_AS_EXPECTED as error:
        raise SourceError(_not_an_api(root, error)) from error


def _search(
    root: str, web: Web, *, collection: str, bbox: tuple[float, float, float, float], span: str, page_size: int
) -> list[JsonObject]:
    with warnings.catch_warnings():
        # What it finds odd about an API is either an error below or none of the user's business.
        warnings.simplefilter("ignore", PystacClientWarning)
        client = Client.open(root, stac_io=_OurIO(root, web))
        method = _method(client)
        search = client.search(method=method, collections=[collection], bbox=bbox, datetime=span, limit=page_size)
    items: list[JsonObject] = []
    for page in search.pages_as_dicts():
        items += page["features"]
        if len(items) > MAX_ITEMS:
            raise SourceError(f"the search of {_short(root)} gives more than {MAX_ITEMS} items; build a smaller region")
    return items


def _method(client: Client) -> str:
    """POST, unless the root names the search for GET alone."""
    methods = {str(link.extra_fields.get("method", "GET")).upper() for link in client.get_links("search")}
    return "GET" if methods == {"GET"} else "POST"


def _not_an_api(root: str, error: BaseException) -> str:
    what = " ".join(published_text(str(error)).split())[:200] or type(error).__name__
    what = what if what.isprintable() else ascii(what)[1:-1]
    return f"{_short(root)} is no STAC API whose items can be searched: {what}; give the root of one, such as https://host/v1"


def _short(address: str) -> str:
    shown = without_secrets(address)[:200]
    return shown if shown.isprintable() else ascii(shown)[1:-1]


class _OurIO(StacApiIO):
    """pystac-client's requests, sent through `Web`: its retries, limits and size checks hold for a search as well."""

    def __init__(self, root: str, web: Web) -> None:
        super().__init__(max_retries=None)
        self._root = root
        self._web = web
        self._ration = Ration(f"the STAC API {_short(root)}", "build a smaller region")

    def read_text(self, source: pystac.link.HREF, *args: Any, **kwargs: Any) -> str:
        """A document behind a link; never a local file, whatever a server names."""
        if not isinstance(source, pystac.Link) and not is_web(str(source)):
            raise SourceError(f"the STAC API {_short(self._root)} links to {_short(str(source))}, which is not http(s)")
        return super().read_text(source, *args, **kwargs)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """The body of an answer; raises OSError."""
        sent = {"Accept": "application/geo+json, application/json", **(headers or {})}
        url = _as_user_of(self._root, href)
        if (method or "GET").upper() == "POST":
            body = json.dumps(parameters or {}).encode()
            sent["Content-Type"] = "application/json"
            answer = self._web.fetch(url, max_bytes=MAX_JSON_BYTES, headers=sent, method="POST", body=body)
        else:
            answer = self._web.fetch(_with_query(url, parameters or {}), max_bytes=MAX_JSON_BYTES, headers=sent)
        self._ration.spend(len(answer.body))
        return answer.body.decode()

    def get_pages(
        self, url: str, method: str | None = None, parameters: dict[str, Any] | None = None
    ) -> Iterator[JsonObject]:
        """Pages with items, to the last: an empty one that names a next one is no end, and none comes twice."""
        asked, seen = {_request_key({"href": url, "body": parameters})}, set[bytes]()
        stated, received = list[int](), 0
        page = self.read_json(url, method=method, parameters=parameters)
        for _ in range(_MAX_PAGES):
            stated += _stated(page)
            if features := _features(page):
                received += len(features)
                texts = [check_item(feature, f"the STAC API {_short(self._root)}") for feature in features]
                content = hashlib.sha256("\n".join(texts).encode()).digest()
                if content in seen:
                    raise SourceError(f"the STAC API {_short(self._root)} sends one page of a search again and again")
                seen.add(content)
                yield page
            following = _next(page)
            if following is None:
                self._check_whole(stated, received)
                return
            key = _request_key(following)
            if key in asked:
                raise SourceError(
                    f"the STAC API {_short(self._root)} names a page as the next of a search that was there before"
                )
            asked.add(key)
            page = self.read_json(_link(following, url), parameters=parameters)
        raise SourceError(f"the search of {_short(self._root)} has no end: {_MAX_PAGES} pages were read")

    def _check_whole(self, stated: list[int], received: int) -> None:
        """Raises where the server itself says that there are more items than it sent.

        The least number that it stated counts, since items come and go while pages are read. A number that stops at a
        cap (10 000 for Elasticsearch) says less than there is, which is no harm; pgstac estimates where counting would
        be dear (its settings: from 100 000 items on), of which `MAX_ITEMS` lets none through.
        """
        if stated and min(stated) > received:
            raise SourceError(
                f"the STAC API {_short(self._root)} states {min(stated)} items for a search and sent {received}, then "
                "named no next page: the answer is not whole; try again later"
            )


def _features(page: JsonObject) -> list[JsonObject]:
    features = page.get("features")
    if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
        raise ValueError("an answer to its search is no list of items")
    return features


def _stated(page: JsonObject) -> list[int]:
    """How many items a page says the search gives in all, by either extension; empty where it does not say."""
    context = page.get("context")
    said = [page.get("numberMatched"), context.get("matched") if isinstance(context, dict) else None]
    return [number for number in said if isinstance(number, int) and not isinstance(number, bool)]


def _next(page: JsonObject) -> JsonObject | None:
    links = page.get("links") or []
    return next((link for link in links if isinstance(link, dict) and link.get("rel") == "next"), None)


def _link(following: JsonObject, url: str) -> pystac.Link:
    """The next page's link, its address made absolute."""
    return pystac.Link.from_dict({**following, "href": urljoin(url, str(following["href"]))})


def _request_key(link: JsonObject) -> str:
    return json.dumps([link.get("href"), link.get("body")], sort_keys=True)


def _with_query(url: str, parameters: dict[str, Any]) -> str:
    if not parameters:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(parameters, quote_via=quote)}"


def _as_user_of(root: str, href: str) -> str:
    """An address of the API's own host with the user and password that its root was given with."""
    user, at, host = urlsplit(root).netloc.rpartition("@")
    parts = urlsplit(href)
    if not at or parts.netloc != host or parts.scheme != urlsplit(root).scheme:
        return href
    return urlunsplit(parts._replace(netloc=f"{user}@{host}"))
