"""Regions, taxonomies and parcel sources from what a user names: a shipped name, a file or a box W,S,E,N.

Every error is a ValueError or FileNotFoundError with one sentence, and the line of the file where there is one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sits_catalog.addresses import without_secrets
from sits_catalog.crop_tree import CropTree, crop_tree, raise_classes
from sits_catalog.documents import Document, build, did_you_mean, parse_document
from sits_catalog.fetching.receipt import parcels_folder, read_receipt
from sits_catalog.parcel_source import NationalSource, ParcelSource
from sits_catalog.region import Imagery, Region, Season
from sits_catalog.sentinel2 import BANDS
from sits_catalog.taxonomy import Taxonomy, parse_taxonomy
from sits_catalog.taxonomy_tables import read_taxonomy

__all__ = [
    "dump_region",
    "list_parcel_sources",
    "list_regions",
    "list_taxonomies",
    "load_crop_tree",
    "load_national_source",
    "load_parcel_source",
    "load_region",
    "load_taxonomy",
    "parse_season",
]

_MAX_REGION_FILE = 1_000_000
_MAX_TAXONOMY_FILE = 20_000_000
_YAML = (".yaml", ".yml")
_VECTOR = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet")
_NUMBER = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)\s*"
_NUMBERS = re.compile(rf"{_NUMBER}(?:,{_NUMBER})+")
_NEED_PATH = {
    "stac": "the catalogue's file or address",
    "safe": "the folder of .SAFE products",
    "stac-api": "the address of the API's root",
}
"""What stands in `imagery.path`, for the sources that have no place of their own."""
_EXAMPLE = "2023-10-01/2024-09-30"


def load_region(
    text: str,
    *,
    season: str | None = None,
    source: str | None = None,
    source_path: str | None = None,
    parcels: str | None = None,
) -> Region:
    """The region that `text` names: a shipped name, a region file (YAML), a vector file of its area, or W,S,E,N.

    The options complete or override what a region file says: `season` is "first/last" day, `source` and `source_path`
    are `imagery.source` and `imagery.path`, `parcels` is `parcels.path`. Their paths start from the working folder.
    """
    document, folder = _find(text)
    if season is not None:
        given = parse_season(season)
        days = {"start": given.start.isoformat(), "end": given.end.isoformat()}
        document = document.with_values("season", days, "--season")
    elif not document.places and "season" not in document.data:
        raise ValueError(f"{text} has no season; add --season with its first and last day, such as {_EXAMPLE}")
    if source is not None:
        document = document.with_values("imagery", _of_source(document, source), "--source")
    if source_path is not None:
        document = document.with_values("imagery", {"path": _from_here(source_path)}, "--source-path")
    if parcels is not None:
        document = document.with_values("parcels", {"path": _from_here(parcels)}, "--parcels")
    region = build(Region, _with_national_source(document), hidden=["folder"]).replace(folder=folder)
    _check_files(region, document)
    return region


def list_regions() -> tuple[str, ...]:
    """Names of the shipped regions, sorted."""
    return _shipped("regions", ".yaml")


def list_taxonomies() -> tuple[str, ...]:
    """Names of the shipped taxonomies, sorted."""
    return _shipped("taxonomies", ".csv")


def list_parcel_sources() -> tuple[str, ...]:
    """Names of the shipped parcel sources, sorted."""
    return _shipped("parcel_sources", ".yaml")


def load_taxonomy(name_or_path: str, folder: Path | None = None, *, classes_at: str | None = None) -> Taxonomy:
    """A shipped taxonomy by name, or one from a CSV file; a relative path starts from `folder` (see `Region.resolve`).

    The format of the file: `sits_catalog.taxonomy`, or one of `sits_catalog.taxonomy_tables`. With `classes_at` its
    classes are raised to nodes of HCAT (`sits_catalog.crop_tree.raise_classes`).
    """
    taxonomy = _own_taxonomy(name_or_path) if name_or_path in list_taxonomies() else None
    if taxonomy is None:
        path = Path(folder or "", name_or_path)
        if path.suffix.lower() != ".csv" and not path.exists():
            raise ValueError(_no_such("taxonomy", name_or_path, list_taxonomies(), "a CSV file"))
        text = _read_file(path, "taxonomy", _MAX_TAXONOMY_FILE)
        taxonomy = read_taxonomy(text, id=path.stem, name=str(path), tree=load_crop_tree())
    return taxonomy if classes_at is None else raise_classes(taxonomy, classes_at, load_crop_tree())


def load_crop_tree() -> CropTree:
    """HCAT 3 as a tree."""
    return crop_tree(_own_taxonomy("hcat3"))


def _own_taxonomy(name: str) -> Taxonomy:
    return parse_taxonomy(_read_shipped("taxonomies", f"{name}.csv"), id=name, name=name)


def load_national_source(name: str) -> NationalSource:
    """The description of a shipped parcel source."""
    if name not in list_parcel_sources():
        raise ValueError(_no_such("parcel source", name, list_parcel_sources(), "a `path`"))
    return build(NationalSource, parse_document(_read_shipped("parcel_sources", f"{name}.yaml"), f"{name}.yaml"))


def load_parcel_source(name: str, year: int | None, *, path: str | None = None) -> ParcelSource:
    """A shipped parcel source of a year, its columns completed, read from the file at `path`.

    Without a path: from what was fetched (`sits-catalog parcels fetch`), and where nothing was, a source without a
    path. ValueError for a year that was not published.
    """
    national = load_national_source(name)
    if path is not None:
        return national.parcels(year, path)
    place = _fetched_to(national, year)
    receipt = read_receipt(place)
    file = None if receipt is None else receipt.parcels(place, national.parcels_member(year))
    if receipt is None or file is None or receipt.converter is None:
        return national.parcels(year, file)
    return dataclasses.replace(
        national.parcels(year, file),
        layer=None,
        id=receipt.id,
        code=receipt.code,
        name=receipt.name,
        code_pattern=None,
        crs=None,
        encoding=None,
    )


def _fetched_to(national: NationalSource, year: int | None) -> Path:
    return parcels_folder().resolve() / national.id / str(year)


def _shipped_taxonomy(national: NationalSource, year: int | None, path: str | None, own_path: bool) -> str | None:
    """The taxonomy of a source's codes: a shipped one, or the table that was fetched beside the parcels.

    The table goes with the fetched parcels alone: what `path` of the user's own means depends on nothing that happens
    to lie in the working folder.
    """
    if own_path or path is None:
        return national.taxonomy
    place = _fetched_to(national, year)
    receipt = read_receipt(place)
    if receipt is None or not receipt.complete:
        return national.taxonomy
    if receipt.converter is not None and receipt.taxonomy is not None:
        return receipt.taxonomy
    if national.taxonomy is None and receipt.mapping is not None and receipt.mapping.lies_in(place):
        return str(place / receipt.mapping.name)
    return national.taxonomy


def parse_season(text: str) -> Season:
    """A season from "first/last" day.

    >>> parse_season("2023-10-01/2024-09-30").end
    datetime.date(2024, 9, 30)
    """
    first, _, last = text.partition("/")
    try:
        start, end = _parse_day(first), _parse_day(last)
    except ValueError as error:
        raise ValueError(f"a season is its first and last day, such as {_EXAMPLE}; got {text!r}") from error
    return Season(start=start, end=end)


_PATHS = (
    ("place", "file"),
    ("imagery", "path"),
    ("imagery", "fallback_path"),
    ("parcels", "path"),
    ("splits", "file"),
)
"""Section and key of what a region file says relative to its folder."""


def dump_region(region: Region) -> dict[str, Any]:
    """The region as plain values for YAML or JSON, every key written out; `load_region` reads it back.

    Paths are written as they resolve from the region's folder; addresses lose user, password and query, which may
    hold secrets.
    """
    plain: dict[str, Any] = _plain(region)
    del plain["folder"]
    for section, key in _PATHS:
        values = plain[section]
        if values and values[key] is not None:
            values[key] = without_secrets(region.resolve(values[key]))
    if region.parcels and region.parcels.labelled_area not in ("region", "parcels"):
        plain["parcels"]["labelled_area"] = without_secrets(region.resolve(region.parcels.labelled_area))
    if region.taxonomy is not None and region.taxonomy not in list_taxonomies():
        plain["taxonomy"] = without_secrets(region.resolve(region.taxonomy))
    return plain


def _find(text: str) -> tuple[Document, Path]:
    """The document of a region and the folder its relative paths start from."""
    path = Path(text)
    suffix = path.suffix.lower()
    if text in list_regions():
        return parse_document(_read_shipped("regions", f"{text}.yaml"), f"{text}.yaml"), Path()
    if _NUMBERS.fullmatch(text):
        return _box(text), Path()
    if suffix in _YAML:
        return parse_document(_read_file(path, "region", _MAX_REGION_FILE), text), path.resolve().parent
    if suffix in _VECTOR:
        if not path.is_file():
            raise FileNotFoundError(f"no file {text}; a region can be the polygons of a GeoJSON file")
        return Document(text, {"id": _safe_id(path.stem), "place": {"file": path.name}}, {}), path.resolve().parent
    if path.exists():
        raise ValueError(f"a region is a name, a .yaml file, a .geojson file or W,S,E,N; {text} is none of them")
    raise ValueError(_no_such("region", text, list_regions(), "a .yaml file, a .geojson file or W,S,E,N"))


def _box(text: str) -> Document:
    bbox = [float(part) for part in text.split(",")]
    if len(bbox) != 4:
        raise ValueError(f"a box is four numbers, W,S,E,N in degrees; got {len(bbox)}: {text}")
    west, south, east, north = bbox
    corners = (_degrees(west, "ew"), _degrees(south, "ns"), _degrees(east, "ew"), _degrees(north, "ns"))
    return Document(text, {"id": f"box-{'-'.join(corners)}", "place": {"bbox": bbox}}, {})


def _degrees(value: float, letters: str) -> str:
    """Degrees as a part of an id, to 1 m: -31.78 as s31.78."""
    return letters[value < 0] + f"{abs(value):.5f}".rstrip("0").rstrip(".")


def _safe_id(stem: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._")[:63] or "area"


def _with_national_source(document: Document) -> Document:
    """The document with what a shipped parcel source says filled in where the file leaves it out."""
    own = document.data.get("parcels")
    if not isinstance(own, Mapping) or not isinstance(own.get("source"), str):
        return document
    path, year = own.get("path"), own.get("year")
    if not isinstance(path, str | None) or not isinstance(year, int | None):
        return document
    try:
        shipped = load_parcel_source(own["source"], year, path=path)
        taxonomy = _shipped_taxonomy(load_national_source(own["source"]), year, shipped.path, path is not None)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"{document.where(('parcels', 'source'))}: {error}") from error
    given = {key: value for key, value in own.items() if key not in ("path", "member") or value is not None}
    data = {"taxonomy": taxonomy, **document.data, "parcels": {**dataclasses.asdict(shipped), **given}}
    return dataclasses.replace(document, data=data)


def _of_source(document: Document, source: str) -> dict[str, Any]:
    """What `--source` changes of `imagery`: another source keeps none of the former one's keys."""
    own = document.data.get("imagery")
    given = own.get("source") if isinstance(own, Mapping) else None
    former = {} if given == source else dict.fromkeys(("collection", "assets", "fallback", "fallback_path"))
    return {"source": source, "path": None, **former}


def _check_files(region: Region, document: Document) -> None:
    """Raises where the region needs a path that it does not have, or its imagery has keys that its source has not."""
    imagery, kind = region.imagery, region.imagery.source
    if kind in _NEED_PATH and imagery.path is None:
        raise ValueError(
            f"{document.where(('imagery', 'source'))}: the source {kind} needs {_NEED_PATH[kind]}: "
            "`path` under `imagery`, or --source-path"
        )
    if imagery.assets is not None:
        _check_assets(imagery, document)
    if imagery.fallback == kind:
        raise ValueError(
            f"{document.where(('imagery', 'fallback'))}: the fallback is the source itself, {kind}; name another "
            "provider, or leave it out"
        )
    if imagery.fallback_path is not None and imagery.fallback is None:
        raise ValueError(
            f"{document.where(('imagery', 'fallback_path'))}: `fallback_path` is the root of the fallback's API, and "
            "no `fallback` is named; name one, or leave it out"
        )
    area = region.place.file
    if area is not None and "://" not in area and not Path(region.resolve(area)).is_file():
        raise FileNotFoundError(f"{document.where(('place', 'file'))}: there is no file {region.resolve(area)}")


def _check_assets(imagery: Imagery, document: Document) -> None:
    """Raises for a table of assets that would never be looked at."""
    where = document.where(("imagery", "assets"))
    if imagery.source != "stac-api":
        raise ValueError(f"{where}: `assets` is for the source stac-api; the names of {imagery.source} are known")
    unknown = [band for band in imagery.assets or {} if band not in (*BANDS, "SCL")]
    if unknown or not imagery.assets:
        raise ValueError(
            f"{where}: `assets` says for each band (B02, ..., SCL) which asset holds it; "
            f"got {', '.join(unknown) or 'none'}"
        )


def _parse_day(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(f"not a day: {text!r}")
    return date.fromisoformat(text)


def _from_here(path: str) -> str:
    return path if "://" in path else str(Path(path).resolve())


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    return value


def _data(kind: str) -> Traversable:
    return files("sits_catalog") / "data" / kind


def _shipped(kind: str, suffix: str) -> tuple[str, ...]:
    names = (entry.name for entry in _data(kind).iterdir())
    return tuple(sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix)))


def _read_shipped(kind: str, name: str) -> str:
    return (_data(kind) / name).read_text(encoding="utf-8")


def _read_file(path: Path, kind: str, max_bytes: int) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} file {path}")
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{path} has {size / 1e6:.1f} MB; a {kind} file has at most {max_bytes // 1_000_000} MB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}); save the {kind} file as UTF-8") from error


def _no_such(kind: str, name: str, known: tuple[str, ...], else_: str) -> str:
    listed = ", ".join(known)
    return f"no {kind} named {name!r}; the catalog has: {listed}{did_you_mean(name, known)} (or give {else_})"
