"""Climates of the simulated archive: what makes two regions differ as two countries do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["CLIMATES", "Climate", "load_climate"]


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Calendar, soils, crops, parcels and sky of a simulated country."""

    name: str
    shift_days: Mapping[str, float]
    """Days by which the calendar of `crops` moves, for winter, summer and perennial covers."""
    sowing_sd_days: float
    """Deviation of sowing and growth between parcels."""
    soils: Mapping[str, float]
    """Ground spectra and how common they are."""
    dryness: float
    """0..1: how much grass and verges wither in summer."""
    vigour: tuple[float, float]
    """Mean and deviation, between parcels, of green cover against its best."""
    crops: Mapping[str, float]
    """Share of the parcels a crop; shares need not sum to 1."""
    parcel_ha: tuple[float, float]
    """Area at which a field is cut no further: median, and sigma of its logarithm."""
    strips: float
    """Share of the blocks that are cut into narrow strips."""
    woods: float
    """Share of the land under woods, about."""
    villages_per_km2: float
    clear: tuple[float, float]
    """Share of passes with a clear sky, in winter and in summer."""
    overcast: tuple[float, float]
    """Share of passes that are mostly cloud, in winter and in summer; the rest is broken cloud."""
    haze: float
    """Typical haze that the atmospheric correction leaves."""
    snow: bool
    """Whether a winter's pass may show snow."""
    southern: bool = False
    """Whether the calendar is half a year late, as south of the equator."""

    def in_the_south(self) -> Climate:
        """The same climate with summer in January."""
        shifted = {season: days + 182.6 for season, days in self.shift_days.items()}
        return replace(self, shift_days=shifted, southern=True)


CLIMATES: Mapping[str, Climate] = {
    climate.name: climate
    for climate in (
        Climate(
            name="temperate",
            shift_days={"winter": 0, "summer": 0, "perennial": 0},
            sowing_sd_days=6,
            soils={"loess": 0.55, "dark loam": 0.35, "chalk": 0.1},
            dryness=0.15,
            vigour=(0.95, 0.07),
            crops={
                "winter_wheat": 26, "winter_barley": 10, "winter_rapeseed": 10, "maize": 15, "sugar_beet": 8,
                "potato": 6, "spring_barley": 6, "sunflower": 3, "soy": 3, "grassland": 18, "alfalfa": 4, "vineyard": 3,
            },
            parcel_ha=(4.6, 0.75),
            strips=0.2,
            woods=0.1,
            villages_per_km2=0.12,
            clear=(0.36, 0.55),
            overcast=(0.3, 0.14),
            haze=0.5,
            snow=True,
        ),
        Climate(
            name="mediterranean",
            shift_days={"winter": -24, "summer": -12, "perennial": -14},
            sowing_sd_days=10,
            soils={"terra rossa": 0.4, "limestone": 0.35, "loess": 0.25},
            dryness=0.65,
            vigour=(0.8, 0.13),
            crops={
                "winter_wheat": 22, "winter_barley": 9, "winter_rapeseed": 4, "maize": 8, "sugar_beet": 3,
                "potato": 3, "spring_barley": 5, "sunflower": 10, "soy": 4, "grassland": 10, "alfalfa": 8,
                "vineyard": 20,
            },
            parcel_ha=(3.2, 0.8),
            strips=0.35,
            woods=0.12,
            villages_per_km2=0.08,
            clear=(0.5, 0.75),
            overcast=(0.22, 0.06),
            haze=0.8,
            snow=False,
        ),
        Climate(
            name="pampas",
            shift_days={"winter": -32, "summer": -10, "perennial": 0},
            sowing_sd_days=9,
            soils={"mollisol": 0.7, "dark loam": 0.2, "sand": 0.1},
            dryness=0.3,
            vigour=(0.93, 0.08),
            crops={
                "winter_wheat": 16, "winter_barley": 7, "winter_rapeseed": 2, "maize": 20, "sugar_beet": 1,
                "potato": 3, "spring_barley": 3, "sunflower": 8, "soy": 30, "grassland": 12, "alfalfa": 8,
                "vineyard": 1,
            },
            parcel_ha=(7.5, 0.6),
            strips=0.05,
            woods=0.04,
            villages_per_km2=0.04,
            clear=(0.45, 0.5),
            overcast=(0.25, 0.2),
            haze=0.4,
            snow=False,
        ),
    )
}  # fmt: skip
"""By name."""


def load_climate(name: str) -> Climate:
    """The climate of this name. Raises ValueError."""
    if name not in CLIMATES:
        raise ValueError(f"no climate named {name!r}; the archive writer knows: {', '.join(sorted(CLIMATES))}")
    return CLIMATES[name]
