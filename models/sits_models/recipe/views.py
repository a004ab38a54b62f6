"""How a view of a chip differs from it: dates, geometry, values; drawn anew for each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sits_models.recipe.checks import check_probability

__all__ = ["VISIBLE", "Blur", "DateSubset", "Geometry", "Jitter", "Photometry", "SingleDates"]

VISIBLE = ("B04", "B03", "B02")
"""Red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class DateSubset:
    """A part of the dates, in their order."""

    least: int | None = None
    """Dates of a view at least: how many from here to `most` is drawn once for a batch; None: as many as `most`."""
    most: int | None = None
    """None: all dates stay, but for those that are dropped."""
    drop: float = 0.0
    """Probability with which a date is no choice, drawn for each chip; one stays of those that it has."""

    def __post_init__(self) -> None:
        if self.most is None and self.least is not None:
            raise ValueError(f"least = {self.least} dates go with a number most")
        if self.most is not None and not 1 <= (self.most if self.least is None else self.least) <= self.most:
            raise ValueError(f"a view has 1 date or more, least at most as many as most; got {self.least}, {self.most}")
        if not 0 <= self.drop < 1:
            raise ValueError(f"drop is a probability below 1; got {self.drop}")


@dataclass(frozen=True, kw_only=True)
class SingleDates:
    """Single dates of a series, for backbones that see one date: SeCo takes 3, GLCNet 1."""

    n: int
    clear: float = 0.0
    """Share of a chip's pixels that is clear at least on a date that may be drawn."""
    again: bool = False
    """Whether each is drawn from all, so that a date may come again; SeCo's code does so (n = 3 of 5 dates differ in
    48 % of the draws), where its paper speaks of distinct ones."""

    def __post_init__(self) -> None:
        if self.n < 1 or not 0 <= self.clear <= 1:
            raise ValueError(f"single dates: n is 1 or more, clear a share in [0, 1]; got {self.n} and {self.clear}")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What moves pixels; the defaults leave any as likely of the eight orientations of a window."""

    sides: tuple[int, ...] = ()
    """Sides of a view, pixels: one of them is drawn for a batch; none: that of the chip."""
    scale: tuple[float, float] | None = None
    """Least and largest share of the chip's area that a view shows, resized to its side (the area is uniform between
    them); None: a window of as many pixels as the view has, not resized."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and largest width / height of what a view shows, uniform in its logarithm."""
    shared: bool = False
    """Whether area and aspect are drawn once for a batch, in which then all chips are resized alike."""
    flips: tuple[float, float, float] = (0.25, 0.25, 0.25)
    """Probabilities of a flip left-right, up-down, and of both."""
    turns: float = 1.0
    """Probability of a turn by 0, 90, 180 or 270 degrees, any as likely."""
    interpolation: Literal["bilinear", "nearest"] = "bilinear"
    """Of the values of a view that is resized; masks take the nearest pixel's. Bilinear is that of the nearest four
    pixels, without a filter where a view is made smaller."""

    def __post_init__(self) -> None:
        if any(side < 1 for side in self.sides):
            raise ValueError(f"sides are numbers of pixels, each at least 1; got {self.sides}")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is a least and a largest share of the area, above 0 and up to 1; got {self.scale}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is a least and a largest width / height above 0; got {self.aspect}")
        if min(self.flips) < 0 or sum(self.flips) > 1 + 1e-9 or not 0 <= self.turns <= 1:
            raise ValueError(
                f"flips are three probabilities with a sum of at most 1, turns is one; got {self.flips}, {self.turns}"
            )


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Changes of colour in the visible bands; each factor is uniform in [1 - value, 1 + value].

    They are linear maps of the visible bands of a pixel, with the mean of the bands for grey (weights of an eye have no
    meaning for reflectance). All four then commute: they have no order, where torchvision's ColorJitter draws one.
    """

    brightness: float = 0.0
    """Of all reflectances."""
    contrast: float = 0.0
    """Of distances from the mean grey of the chip, over all its dates."""
    saturation: float = 0.0
    """Of distances from the grey of the pixel."""
    hue: float = 0.0
    """Share of a full turn, at most, by which colours turn around the axis of greys; it needs three visible bands."""
    probability: float = 1.0
    visible: tuple[str, ...] = VISIBLE
    """Names of the bands that are meant; what a sample lacks of them is left out."""

    def __post_init__(self) -> None:
        factors = (self.brightness, self.contrast, self.saturation)
        if min(factors) < 0 or max(factors) > 1 or not 0 <= self.hue <= 0.5:
            raise ValueError(f"a jitter's factors lie in [0, 1] and its hue in [0, 0.5]; got {factors} and {self.hue}")
        check_probability("jitter", self.probability)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A Gaussian blur, the same for all dates and bands of a chip."""

    sigma: tuple[float, float] | None = None
    """Least and largest deviation in pixels, uniform between them; SeCo: 0.1 to 2."""
    kernels: tuple[int, ...] | None = None
    """Or odd sizes of the kernel, one drawn for a chip, with OpenCV's deviation 0.3 ((n - 1) / 2 - 1) + 0.8; GLCNet: 3,
    5, 7."""
    probability: float = 0.5

    def __post_init__(self) -> None:
        if (self.sigma is None) == (self.kernels is None):
            raise ValueError(f"a blur has a range of sigma or sizes of kernels; got {self.sigma} and {self.kernels}")
        if self.sigma is not None and not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"a blur's sigma is a least and a largest deviation above 0; got {self.sigma}")
        if self.kernels is not None and (not self.kernels or any(n < 1 or n % 2 == 0 for n in self.kernels)):
            raise ValueError(f"a blur's kernels have odd sizes; got {self.kernels}")
        check_probability("blur", self.probability)


@dataclass(frozen=True, kw_only=True)
class Photometry:
    """What changes values and moves none; drawn anew for each chip, the same for all its dates, but for noise."""

    gain: float = 0.0
    """Deviation of a factor a band, around 1."""
    offset: float = 0.0
    """Deviation of an addend a band, in reflectance [0, 1]."""
    contrast: float = 0.0
    """A factor a band, uniform in [1 - contrast, 1 + contrast], of distances from the band's mean over the chip's
    observed pixels and dates."""
    jitter: Jitter | None = None
    grey: float = 0.0
    """Probability with which all bands become one."""
    grey_of: Literal["band", "visible"] = "band"
    """One band drawn for each chip, as GLCNet; or the mean of B02, B03 and B04, or those of them that there are."""
    blur: Blur | None = None
    noise: float = 0.0
    """Deviation of noise a value, in reflectance [0, 1]."""
    drop_bands: float = 0.0
    """Probability with which a band is hidden, drawn for each chip; one stays."""
    bands: tuple[int, int] | None = None
    """Least and largest number of bands that are not hidden in a batch; number and bands are drawn once for it."""

    def __post_init__(self) -> None:
        spreads = (self.gain, self.offset, self.contrast, self.noise)
        if min(spreads) < 0 or self.contrast > 1:
            raise ValueError(f"gain, offset, contrast and noise are 0 or more, contrast at most 1; got {spreads}")
        check_probability("grey", self.grey)
        check_probability("drop_bands", self.drop_bands)
        if self.bands is not None and not 1 <= self.bands[0] <= self.bands[1]:
            raise ValueError(f"bands are a least and a largest number, from 1 on; got {self.bands}")
