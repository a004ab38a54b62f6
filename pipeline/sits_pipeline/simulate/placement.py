"""On which passes of a simulated archive its oddities fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

__all__ = ["Placement", "place_oddities"]

_GREENEST = 145
"""Day of the year on which most land is green, north of the equator."""
_STILL_GREEN = 75
"""Days before or after it that are green enough."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Positions of passes; None where the archive has too few dates for the oddity."""

    switch: int
    """First pass whose baseline carries the offset."""
    shifted: int | None
    """An item without the offset whose flag says that it still has it."""
    unshifted: int | None
    """An item with the offset whose flag says that it has it no longer."""
    twin: int | None
    split: int | None
    empty: int | None
    overcast: int | None

    @property
    def clear(self) -> frozenset[int | None]:
        """Passes that are kept clear, so that the pixels can tell that the flags lie."""
        return frozenset({self.shifted, self.unshifted})


def place_oddities(days: Sequence[tuple[date, bool]], switch: int, *, southern: bool) -> Placement:
    """Oddities of passes given by day and whether the pass is the second orbit's, whose swath ends in the region.

    The flags lie on green days of the first orbit; a twin, a split, an empty and an overcast pass find other passes.
    """
    n = len(days)
    greenest = (_GREENEST + (183 if southern else 0)) % 365

    def browning(k: int) -> int:
        apart = abs(days[k][0].timetuple().tm_yday - greenest)
        return min(apart, 365 - apart)

    after = range(switch, n)
    first_orbit = [k for k in after if not days[k][1]]
    green = sorted(first_orbit, key=browning) + sorted(set(after) - set(first_orbit), key=browning)
    shifted = green[0] if n >= 2 else None
    # Two opposite lies on one pass, on two tiles, are better than one on bare soil.
    second = 1 if len(green) > 1 and browning(green[1]) <= _STILL_GREEN else 0
    unshifted = green[second] if n >= 3 else None
    used = {shifted, unshifted}

    def take(least: int, preferred: Iterable[int]) -> int | None:
        if n < least:
            return None
        # The first pass is always one of broken cloud and cirrus.
        place = next(k for k in (*preferred, *reversed(range(1, n))) if k not in used and k > 0)
        used.add(place)
        return place

    return Placement(
        switch=switch,
        shifted=shifted,
        unshifted=unshifted,
        twin=take(6, (k for k in reversed(range(switch)) if not days[k][1])),
        split=take(8, (k for k in after if not days[k][1])),
        empty=take(10, (k for k in after if days[k][1])),
        overcast=take(6, (k for k in range(n) if not days[k][1])),
    )
