from __future__ import annotations

import json

import pytest

from sits_catalog.addresses import published, published_text, without_secrets


@pytest.mark.parametrize(
    ("address", "clean"),
    [
        ("https://example.org/a.tif", "https://example.org/a.tif"),
        ("https://example.org/a.tif?sig=SECRET&x=1#SECRET", "https://example.org/a.tif"),
        ("https://example.org/a.tif#SECRET?x", "https://example.org/a.tif"),
        ("http://me:SECRET@example.org:8080/a@b", "http://example.org:8080/a@b"),
        ("http://me:SEC@RET@example.org", "http://example.org"),
        ("http://example.org?sig=SECRET", "http://example.org"),
        ("s3://key:SECRET@bucket/key", "s3://bucket/key"),
        ("http://[::1/broken?sig=SECRET", "http://[::1/broken"),
        ("zip://zoo::http://me:SECRET@host/a.zip?sig=SECRET", "zip://zoo::http://host/a.zip"),
        ("zip://a?b=SECRET::simplecache::s3://key:SECRET@bucket/a.zip", "zip://a::s3://bucket/a.zip"),
        ("simplecache::s3://key:SECRET@bucket/a", "simplecache::s3://bucket/a"),
        ("/data/what?/a#1.tif", "/data/what?/a#1.tif"),
    ],
)
def test_an_address_keeps_what_is_no_secret(address: str, clean: str) -> None:
    assert without_secrets(address) == clean
    assert without_secrets(clean) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("no address? none", "no address? none"),
        ("https://example.org/a b?sig=SECRET x", "https://example.org/a b"),
        (" https://example.org/a?sig=SECRET", " https://example.org/a"),
        ('{"href": "https://example.org/a?sig=SECRET"}', '{"href": "https://example.org/a"}'),
        ("/vsicurl/https://me:SECRET@example.org/a?sig=SECRET: HTTP 403", "/vsicurl/https://example.org/a HTTP 403"),
    ],
)
def test_addresses_within_a_text_are_cleaned(text: str, clean: str) -> None:
    assert published_text(text) == clean


def test_a_document_is_cleaned_at_any_depth_and_left_as_it_was() -> None:
    document = {
        "id": "a?b",
        "properties": {"licence": "https://me:SECRET@example.org/l?k=SECRET", "eo:cloud_cover": 2.5, "none": None},
        "links": [{"rel": "self", "href": "item.json?token=SECRET"}],
        "assets": {
            "B02": {"href": "./B02.tif?sig=SECRET#x", "alternate": {"s3": {"href": "s3://me:SECRET@bucket/B02.tif"}}}
        },
        "providers": [["https://example.org/?SECRET"], True],
    }
    before = json.dumps(document)
    assert published(document) == {
        "id": "a?b",
        "properties": {"licence": "https://example.org/l", "eo:cloud_cover": 2.5, "none": None},
        "links": [{"rel": "self", "href": "item.json"}],
        "assets": {"B02": {"href": "./B02.tif", "alternate": {"s3": {"href": "s3://bucket/B02.tif"}}}},
        "providers": [["https://example.org/"], True],
    }
    assert json.dumps(document) == before


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_document_nested_without_end_is_one_sentence(opening: str) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening]

    def nested(levels: int) -> object:
        return json.loads(opening * levels + '"https://me:SECRET@example.org"' + closing * levels)

    assert "SECRET" not in str(published(nested(100)))
    for levels in (101, 1200):  # which the parser takes
        with pytest.raises(ValueError, match="it is nested deeper than 100 levels"):
            published(nested(levels))
