"""The twelve simulated crops, and what else covers the ground: when it is green, ripe and cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["COVERS", "CROPS", "Cover", "Cycle"]


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One rise and fall of green cover, double logistic; days count from 1 January of the harvest year."""

    rise: float
    """Day at which half of the cover is reached."""
    fall: float
    """Day at which half of the cover is gone again."""
    cover: float
    """Green cover at the top, 0..1."""
    rise_rate: float = 0.1
    """Steepness, per day."""
    fall_rate: float = 0.12
    harvest: float | None = None
    """Day of harvest: what withers before stands as straw, what is left after decays; None: cut green."""
    spread: float = 1.0
    """How much more than sowing the days of this cycle differ between parcels."""


@dataclass(frozen=True, kw_only=True)
class Cover:
    """What grows or stands on a piece of land."""

    code: str
    name: str
    leaf: str
    cycles: tuple[Cycle, ...] = ()
    evergreen: float = 0.0
    """Green cover all year."""
    ground: str | None = None
    """Name of a ground spectrum; None: the soil of the climate."""
    flower: tuple[float, float, float] | None = None
    """Day, duration in days and cover of the flowers."""
    season: str = "summer"
    """Which shift of a climate's calendar applies: winter, summer or perennial."""
    texture: float = 0.025
    """Relative variation from pixel to pixel that stays through the year."""


_CROPS = (
    Cover(
        code="winter_wheat", name="Winter wheat", leaf="cereal", season="winter",
        cycles=(Cycle(rise=-52, fall=92, cover=0.3, rise_rate=0.07), Cycle(rise=84, fall=172, cover=0.86, harvest=202)),
    ),
    Cover(
        code="winter_barley", name="Winter barley", leaf="cereal", season="winter",
        cycles=(
            Cycle(rise=-66, fall=84, cover=0.36, rise_rate=0.07),
            Cycle(rise=76, fall=153, cover=0.84, harvest=181),
        ),
    ),
    Cover(
        code="winter_rapeseed", name="Winter rapeseed", leaf="rapeseed", season="winter", flower=(116, 11, 0.75),
        cycles=(
            Cycle(rise=-112, fall=96, cover=0.55, rise_rate=0.08),
            Cycle(rise=78, fall=160, cover=0.88, harvest=196),
        ),
    ),
    Cover(
        code="maize", name="Maize", leaf="maize",
        cycles=(Cycle(rise=158, fall=256, cover=0.92, rise_rate=0.11, fall_rate=0.09, harvest=280),),
    ),
    Cover(
        code="sugar_beet", name="Sugar beet", leaf="beet",
        cycles=(Cycle(rise=152, fall=292, cover=0.95, rise_rate=0.1, fall_rate=0.4),),
    ),
    Cover(
        code="potato", name="Potato", leaf="potato", texture=0.035,
        cycles=(Cycle(rise=156, fall=232, cover=0.9, rise_rate=0.14, fall_rate=0.2, harvest=254),),
    ),
    Cover(
        code="spring_barley", name="Spring barley", leaf="cereal",
        cycles=(Cycle(rise=116, fall=181, cover=0.83, rise_rate=0.12, fall_rate=0.17, harvest=211),),
    ),
    Cover(
        code="sunflower", name="Sunflower", leaf="sunflower", flower=(200, 10, 0.4), texture=0.035,
        cycles=(Cycle(rise=153, fall=226, cover=0.8, rise_rate=0.13, harvest=259),),
    ),
    Cover(
        code="soy", name="Soy", leaf="soy",
        cycles=(Cycle(rise=168, fall=250, cover=0.91, rise_rate=0.13, fall_rate=0.17, harvest=271),),
    ),
    Cover(
        code="grassland", name="Permanent grassland", leaf="grass", season="perennial", evergreen=0.5, texture=0.04,
        cycles=(
            Cycle(rise=82, fall=146, cover=0.4, fall_rate=0.6, spread=3),
            Cycle(rise=164, fall=210, cover=0.34, rise_rate=0.12, fall_rate=0.6, spread=3),
            Cycle(rise=230, fall=300, cover=0.28, fall_rate=0.08, spread=3),
        ),
    ),
    Cover(
        code="alfalfa", name="Alfalfa", leaf="alfalfa", season="perennial", evergreen=0.14,
        cycles=(
            Cycle(rise=82, fall=139, cover=0.8, fall_rate=0.9, spread=1.5),
            Cycle(rise=151, fall=180, cover=0.82, rise_rate=0.22, fall_rate=0.9, spread=1.5),
            Cycle(rise=192, fall=222, cover=0.8, rise_rate=0.22, fall_rate=0.9, spread=1.5),
            Cycle(rise=235, fall=292, cover=0.74, rise_rate=0.18, spread=1.5),
        ),
    ),
    Cover(
        code="vineyard", name="Vineyard", leaf="vine", season="perennial", evergreen=0.06, texture=0.06,
        cycles=(
            Cycle(rise=127, fall=288, cover=0.42, rise_rate=0.08, fall_rate=0.08),
            Cycle(rise=-40, fall=112, cover=0.14),
        ),
    ),
)  # fmt: skip
CROPS: Mapping[str, Cover] = {crop.code: crop for crop in _CROPS}
"""The crops by the code that parcels declare."""

_BROADLEAF = (Cycle(rise=112, fall=300, cover=0.82, rise_rate=0.13, fall_rate=0.1, harvest=318),)
_GARDEN = (Cycle(rise=95, fall=300, cover=0.35, rise_rate=0.06, fall_rate=0.06),)
_OTHER = (
    Cover(code="road", name="Road", leaf="grass", ground="asphalt", evergreen=0.04, season="perennial"),
    Cover(code="track", name="Field track", leaf="grass", ground="gravel", evergreen=0.3, season="perennial"),
    Cover(code="verge", name="Verge", leaf="grass", evergreen=0.5, cycles=_GARDEN, season="perennial", texture=0.08),
    Cover(code="fallow", name="Fallow", leaf="grass", evergreen=0.16, cycles=_GARDEN, season="perennial", texture=0.09),
    Cover(code="broadleaf", name="Broadleaf wood", leaf="broadleaf", ground="litter", evergreen=0.1, cycles=_BROADLEAF,
          season="perennial", texture=0.12),
    Cover(code="conifer", name="Conifer wood", leaf="conifer", ground="litter", evergreen=0.92, season="perennial",
          texture=0.1),
    Cover(code="street", name="Village street", leaf="grass", ground="asphalt", evergreen=0.15, season="perennial",
          texture=0.12),
    Cover(code="house", name="House", leaf="grass", ground="roof", evergreen=0.18, season="perennial", texture=0.22),
    Cover(code="hall", name="Hall", leaf="grass", ground="bright roof", season="perennial", texture=0.08),
    Cover(code="garden", name="Garden", leaf="broadleaf", evergreen=0.4, cycles=_GARDEN, season="perennial",
          texture=0.14),
    Cover(code="lake", name="Lake", leaf="grass", ground="lake", season="perennial", texture=0.04),
    Cover(code="river", name="River", leaf="grass", ground="river", season="perennial", texture=0.06),
)  # fmt: skip
COVERS: tuple[Cover, ...] = (*_CROPS, *_OTHER)
"""Crops first, then everything else."""
