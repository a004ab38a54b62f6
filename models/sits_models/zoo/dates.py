"""How many dates shared weights take, and which of a series: those that the model was shown, of all that were read."""

from __future__ import annotations

from sits_models.checkpoints import Card
from sits_models.recipe import DateSubset

__all__ = ["dates_in_short", "dates_in_words", "dates_taken"]


def dates_taken(card: Card) -> int:
    """T of the chips that the model takes."""
    # A card says of a change what its backbone sees at a time.
    return 2 if card.recipe.change is not None else card.dates


def dates_in_words(card: Card) -> str:
    """One sentence."""
    rule = card.recipe.data.dates
    if card.recipe.change is not None:
        return "Two dates, which are compared."
    if card.dates == 1:
        return "One date."
    if _drawn(card):
        return f"Up to {card.dates} dates of the series."
    return {
        "all": "All dates of the series.",
        "first": f"The first {rule.n} dates of the series.",
        "even": f"{rule.n} dates, spread evenly over the series.",
        "random": f"{rule.n} dates of the series.",
    }[rule.pick]


def dates_in_short(card: Card) -> str:
    """How many, and by which rule where it is that of `data.dates`."""
    number = dates_taken(card)
    if card.recipe.change is not None or card.dates == 1:
        return f"{number}"
    return f"up to {number}" if _drawn(card) else f"{number} ({card.recipe.data.dates.pick})"


def _drawn(card: Card) -> bool:
    """Whether a pretraining was shown views of fewer dates than were read."""
    own = getattr(getattr(card.recipe, card.recipe.objective), "dates", None)
    return isinstance(own, DateSubset) and own.most is not None
