"""A simulated landscape: fields, tracks, woods, villages and water as polygons that are painted one over another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from sits_pipeline.simulate.climates import Climate
from sits_pipeline.simulate.crops import COVERS, CROPS
from sits_pipeline.simulate.fields import generator
from sits_pipeline.simulate.partition import Ring, area_of, cut_by_size, cut_into_strips, inset

__all__ = ["Landscape", "make_landscape"]

_CODES = [cover.code for cover in COVERS]
_MIN_FIELD_M2 = 3000.0
_MAX_FIELD_M2 = 150_000.0


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Pieces of land in painting order: a later one covers an earlier one. Aligned arrays, coordinates in metres."""

    geometry: NDArray[np.object_]
    cover: NDArray[np.intp]
    """Position in `crops.COVERS`."""
    field: NDArray[np.bool_]
    """Whether the piece is an agricultural field."""

    def __len__(self) -> int:
        return len(self.geometry)


def make_landscape(bounds: tuple[float, float, float, float], climate: Climate, seed: int) -> Landscape:
    """Land that fills `bounds` (west, south, east, north in metres) and reaches 400 m beyond them."""
    west, south, east, north = bounds
    domain = np.array([(west, south), (east, south), (east, north), (west, north)], np.float64)
    domain += 400.0 * np.sign(domain - domain.mean(axis=0))
    blocks, fields = _farmland(domain, climate, generator(seed, "fields"))
    nature = _nature(domain, bounds, climate, generator(seed, "nature"))
    fields = _clear_of(fields, nature, generator(seed, "corners"))
    crops = _choose_crops(fields, climate, generator(seed, "crops"))
    fields, crops, ponds = _with_holes(fields, crops, generator(seed, "ponds"))
    lots = [(piece, code) for village in nature.villages for piece, code in _lots(village, generator(seed, "lots"))]
    pieces: list[tuple[BaseGeometry, str]] = [
        (shapely.Polygon(domain), "road"),
        *((shapely.Polygon(block), "verge") for block in blocks),
        *zip(fields, crops, strict=True),
        *nature.woods,
        *((village, "street") for village in nature.villages),
        *lots,
        *nature.water,
        *ponds,
    ]
    codes = [code for _, code in pieces]
    is_field = np.zeros(len(pieces), np.bool_)
    is_field[1 + len(blocks) : 1 + len(blocks) + len(fields)] = True
    return Landscape(
        geometry=np.array([geometry for geometry, _ in pieces], dtype=object),
        cover=np.array([_CODES.index(code) for code in codes], np.intp),
        field=is_field,
    )


def _farmland(domain: Ring, climate: Climate, rng: np.random.Generator) -> tuple[list[Ring], list[BaseGeometry]]:
    """Blocks between the roads, and the fields they are cut into."""
    blocks: list[Ring] = []
    fields: list[Ring] = []
    for tract in cut_by_size(
        domain, rng, angle=rng.uniform(0, math.pi), target=lambda: 5e6 * rng.uniform(0.5, 1.6), tilt=0.25
    ):
        angle = rng.uniform(0, math.pi)
        for block in cut_by_size(tract, rng, angle=angle, target=lambda: 4.5e5 * rng.lognormal(0, 0.5), tilt=0.07):
            inner = inset(block, float(rng.choice([2.5, 3.0, 5.0])))
            if inner is not None and area_of(inner) > _MIN_FIELD_M2:
                blocks.append(inner)
                fields.extend(_fields_of(inner, angle, climate, rng))
    return blocks, [shapely.Polygon(ring) for ring in fields if area_of(ring) >= _MIN_FIELD_M2]


def _fields_of(block: Ring, angle: float, climate: Climate, rng: np.random.Generator) -> Iterator[Ring]:
    median_ha, sigma = climate.parcel_ha

    def target() -> float:
        return min(1e4 * median_ha * rng.lognormal(0, sigma), _MAX_FIELD_M2 / 1.4)

    if rng.random() < climate.strips:
        width = rng.uniform(22, 70)
        for strip in cut_into_strips(block, rng, angle=angle, width=lambda: width * rng.uniform(0.6, 1.7)):
            yield from cut_by_size(strip, rng, angle=angle, target=lambda: max(target(), 2.5e4), tilt=0.02)
        return
    for field in cut_by_size(block, rng, angle=angle, target=target, tilt=0.05):
        hedged = inset(field, 2.0) if rng.random() < 0.12 else field
        if hedged is not None:
            yield hedged


@dataclass(frozen=True)
class _Nature:
    """What no field may reach into."""

    woods: list[tuple[BaseGeometry, str]]
    villages: list[BaseGeometry]
    water: list[tuple[BaseGeometry, str]]


def _nature(
    domain: Ring, bounds: tuple[float, float, float, float], climate: Climate, rng: np.random.Generator
) -> _Nature:
    size = min(bounds[2] - bounds[0], bounds[3] - bounds[1])
    km2 = area_of(domain) / 1e6
    where = rng.uniform(domain.min(axis=0), domain.max(axis=0), (4000, 2))
    places = iter(where)
    woods: list[tuple[BaseGeometry, str]] = []
    wooded = 0.0
    while wooded < climate.woods * area_of(domain):
        radius = min(120.0 * rng.lognormal(0, 0.6), 600.0, 0.15 * size)
        blob = _blob(next(places), radius, rng, roughness=0.32)
        woods.append((blob, "conifer" if rng.random() < 0.4 else "broadleaf"))
        wooded += blob.area
    n_villages = round(climate.villages_per_km2 * km2)
    villages = [_blob(next(places), rng.uniform(140, 380), rng, roughness=0.3) for _ in range(n_villages)]
    water: list[tuple[BaseGeometry, str]] = []
    if size > 4000:
        river = _river(domain, rng)
        width = rng.uniform(9, 20)
        woods.append((river.buffer(width + rng.uniform(8, 20)), "broadleaf"))
        water.append((river.buffer(width), "river"))
    middle = np.array([(bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2])
    for _ in range(1 + round(km2 / 45)):
        # The first lake always lies where it is seen, however small the region.
        centre = middle + size * rng.uniform(-0.3, 0.3, 2)
        water.append((_blob(centre, min(rng.uniform(140, 320), 0.07 * size), rng, roughness=0.2), "lake"))
    return _Nature(woods=woods, villages=villages, water=water)


def _blob(centre: NDArray[np.float64], radius: float, rng: np.random.Generator, *, roughness: float) -> BaseGeometry:
    """A round shape with an uneven shore."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    outline = np.ones_like(angle)
    for wave in range(2, 9):
        outline += roughness * rng.normal() / wave**0.8 * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    outline = radius * np.clip(outline, 0.35, 2.2)
    return shapely.Polygon(np.stack([centre[0] + outline * np.cos(angle), centre[1] + outline * np.sin(angle)], axis=1))


def _river(domain: Ring, rng: np.random.Generator) -> BaseGeometry:
    """A meandering line right across the domain."""
    west, south = domain.min(axis=0)
    east, north = domain.max(axis=0)
    along = np.linspace(-500.0, east - west + 500.0, 400)
    across = np.full_like(along, (north - south) * rng.uniform(0.35, 0.65))
    for length, amplitude in ((9000, 700), (3500, 260), (1300, 90), (600, 30)):
        turns = along / (length * rng.uniform(0.8, 1.2))
        across += amplitude * np.sin(2 * np.pi * turns + rng.uniform(0, 2 * np.pi))
    return shapely.LineString(np.stack([west + along, south + across], axis=1))


def _clear_of(fields: list[BaseGeometry], nature: _Nature, rng: np.random.Generator) -> list[BaseGeometry]:
    """The fields without what woods, villages and water take from them; the larger piece of a field cut in two."""
    obstacles = [shapely.buffer(geometry, 4.0) for geometry, _ in (*nature.woods, *nature.water)]
    obstacles += [shapely.buffer(village, 6.0) for village in nature.villages]
    taken = shapely.union_all(obstacles)
    shapely.prepare(taken)
    cleared: list[BaseGeometry] = []
    for field in fields:
        if not taken.intersects(field):
            cleared.append(field)
            continue
        parts = [part for part in shapely.get_parts(shapely.difference(field, taken)) if part.area >= _MIN_FIELD_M2]
        parts.sort(key=lambda part: part.area)
        cleared.extend(parts if rng.random() < 0.3 else parts[-1:])
    return cleared


def _choose_crops(fields: list[BaseGeometry], climate: Climate, rng: np.random.Generator) -> list[str]:
    """A crop a field by the climate's shares; neighbours are a little alike, and every crop occurs if there is room."""
    shares = np.array([climate.crops[code] for code in CROPS], np.float64)
    centre = shapely.get_coordinates(shapely.centroid(np.array(fields, dtype=object)))
    logits = np.log(shares / shares.sum())[None, :] + 0.7 * _hills(centre, len(shares), rng)
    chosen = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    order = rng.permutation(len(chosen))
    least = min(len(chosen) // 60, 25)
    for crop in range(len(shares)):
        missing = least - int(np.count_nonzero(chosen == crop))
        if missing > 0:
            common = np.argsort(-np.bincount(chosen, minlength=len(shares)))[:4]
            chosen[order[np.isin(chosen[order], common)][:missing]] = crop
    codes = list(CROPS)
    return [codes[index] for index in chosen]


def _hills(centre: NDArray[np.float64], n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Smooth functions of the place (field, n), deviation about 1: soils that suit one crop and not another."""
    waves = 2 * np.pi / rng.uniform(2500, 7000, (4, n))
    turn = rng.uniform(0, 2 * np.pi, (4, n))
    x, y = centre[:, :1], centre[:, 1:]
    return np.asarray(
        sum(np.sin(w * (x * np.cos(a) + y * np.sin(a)) + 7 * a) for w, a in zip(waves, turn, strict=True))
        / math.sqrt(2)
    )


def _with_holes(
    fields: list[BaseGeometry], crops: list[str], rng: np.random.Generator
) -> tuple[list[BaseGeometry], list[str], list[tuple[BaseGeometry, str]]]:
    """Some larger fields with a pond or a copse in the middle."""
    ponds: list[tuple[BaseGeometry, str]] = []
    holed = list(fields)
    for i, field in enumerate(fields):
        if field.area < 25_000 or rng.random() > 0.05:
            continue
        hole = _blob(np.array(shapely.get_coordinates(field.centroid)[0]), rng.uniform(12, 30), rng, roughness=0.2)
        if field.contains_properly(hole):
            holed[i] = shapely.difference(field, hole)
            ponds.append((hole, "lake" if rng.random() < 0.25 else "broadleaf"))
    return holed, crops, ponds


def _lots(village: BaseGeometry, rng: np.random.Generator) -> Iterator[tuple[BaseGeometry, str]]:
    """Houses and gardens of a village, with streets between them."""
    box = np.array(shapely.get_coordinates(shapely.minimum_rotated_rectangle(village)))[:-1]
    ring = box if area_of(box) > 0 else box[::-1]
    edge = ring[1] - ring[0]
    angle = math.atan2(edge[1], edge[0])
    for lot in cut_by_size(ring, rng, angle=angle, target=lambda: 1500 * rng.lognormal(0, 0.6), tilt=0.1):
        inner = inset(lot, float(rng.choice([0.5, 0.5, 4.0])))
        if inner is not None and village.contains(shapely.Point(inner.mean(axis=0))):
            code = ("hall" if area_of(inner) > 2500 else "house") if rng.random() < 0.45 else "garden"
            yield shapely.Polygon(inner), code
