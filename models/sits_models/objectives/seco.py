"""Seasonal contrast (SeCo): what a chip shows, what its season changes and what colours change, in sub-spaces.

Mañas, Lacoste, Giró-i-Nieto, Vazquez and Rodríguez, "Seasonal contrast: unsupervised pre-training from uncurated remote
sensing data", ICCV 2021; code: ServiceNow/seasonal-contrast. Deliberate differences: a queue wraps around at any
length, and with several processes the keys of the batch are those of all, not of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.chip_embeddings import (
    chip_channels,
    embed_chips,
    enough_chips,
    leave_decoder_out,
    require_plain,
)
from sits_models.objectives.collapse import effective_rank, unit_deviation
from sits_models.objectives.info_nce import Contrast, info_nce
from sits_models.objectives.momentum import follow, follower
from sits_models.objectives.projection import build_projection
from sits_models.objectives.queues import Queue
from sits_models.objectives.shuffling import Apart, here
from sits_models.recipe import Augmentation, SeCoRecipe
from sits_models.sample import Sample

__all__ = [
    "SUB_SPACES",
    "KeyViews",
    "Mode",
    "SeasonalContrast",
]

Mode = Literal["moco", "moco_tp", "seco"]
"""moco and moco_tp have one sub-space and differ in their views: two augmentations of one date, or of two dates."""

SUB_SPACES: dict[Mode, tuple[str, ...]] = {
    "moco": ("all",),
    "moco_tp": ("all",),
    "seco": ("all", "season", "augmentation"),
}
"""What the embeddings of each sub-space are invariant to: of key view i the positive lies in sub-space i."""


@dataclass(frozen=True)
class KeyViews:
    """Views of the same chips, in the same order."""

    query: Sample
    keys: tuple[Sample, ...]
    """One a sub-space: the key of number i is a positive in sub-space i, and in all after the first one the others are
    negatives. In SeCo, of three dates: 0 another date in other colours, 1 another date, 2 the query's in other colours.
    """

    deal: Tensor = field(default_factory=lambda: torch.zeros(()))
    """(B,): by which keys may be dealt out to be encoded elsewhere (`Shuffled`), or one for all, by which none is."""

    def __post_init__(self) -> None:
        chips = [len(sample.place) for sample in (self.query, *self.keys)]
        if len(set(chips)) != 1:
            raise ValueError(f"a query and its keys are views of as many chips; got {', '.join(map(str, chips))}")
        if self.deal.ndim and self.deal.shape != (chips[0],):
            raise ValueError(f"{chips[0]} chips are dealt out by as many numbers; got {tuple(self.deal.shape)}")


class SeasonalContrast(Objective[KeyViews]):
    """An encoder whose chips find themselves among others: heads into sub-spaces, a key side that follows, queues.

    In training `loss` first moves the key side, and puts the batch's keys into the queues in the end; otherwise it
    changes nothing. Weights that are loaded into `encoder` alone reach the key side by `catch_up`.
    """

    apart: Apart
    """How the keys' chips are encoded, in training: `here`, or `Shuffled` among processes."""

    def __init__(self, encoder: Encoder, options: SeCoRecipe) -> None:
        """Raises ValueError for an encoder of finer labels, or of logits."""
        super().__init__()
        require_plain(encoder, "a seasonal contrast")
        leave_decoder_out(encoder)
        self.options = options
        self.sub_spaces = SUB_SPACES[options.mode]
        self.encoder = encoder
        self.heads = nn.ModuleList(_head(chip_channels(encoder), options.channels) for _ in self.sub_spaces)
        self.key_encoder, self.key_heads = follower(encoder), follower(self.heads)
        self.queues = nn.ModuleList(Queue(options.queue, channels=options.channels) for _ in self.sub_spaces)
        self.apart = here

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> KeyViews:  # noqa: ARG002
        """The query and a key a sub-space, each cropped anew (Mañas et al. 2021, section 3.2); chips with too few dates
        that are clear enough are left out.

        Of SeCo, with the dates t0, t1 and t2: query t0; keys t1 in other colours, t2, and t0 in other colours. Of MoCo
        v2 query and key are one date or two, both in other colours.
        """
        options = self.options
        dates, there = draw_single(sample, options.dates, draws)
        # By date and whether in other colours: the query, and a key a sub-space.
        looks: tuple[tuple[int, bool], ...] = ((0, False), (1, True), (2, False), (0, True))
        if options.mode != "seco":
            looks = ((0, True), (len(dates) - 1, True))
        seen = [self._look(dates[date], draws, coloured=coloured) for date, coloured in looks]
        there = enough_chips(self.encoder, there, side=min(one.image.shape[-1] for one in seen))
        query, *keys = (one.take(there) for one in seen)
        return KeyViews(query, tuple(keys), draws.uniform().to(there.device)[there])

    def _look(self, date: Sample, draws: Draws, *, coloured: bool) -> Sample:
        options = self.options
        geometry = replace(options.geometry, flips=options.flips) if coloured else options.geometry
        return draw_look(date, geometry, options.photometry if coloured else None, draws).sample

    def loss(self, views: KeyViews) -> Loss:
        """The sum over the sub-spaces of the cross entropies of the positives among all keys; its count is of queries.

        Monitors, by sub-space: `accuracy`, how often the positive is the key most alike, and of the batch's keys the
        `unit_deviation` and the `effective_rank`. Embeddings that collapse have a deviation near 0 or a rank near 1.
        Raises ValueError for other than one key view a sub-space.
        """
        if len(views.keys) != len(self.sub_spaces):
            raise ValueError(
                f"the mode {self.options.mode} has {len(self.sub_spaces)} key views; got {len(views.keys)}"
            )
        if self.training:
            self.follow(momentum=self.options.momentum)
        stored, contrasts = self.contrasts(views)
        values, monitors = [], {}
        for name, contrast, keys in zip(self.sub_spaces, contrasts, stored, strict=True):
            value, right = info_nce(contrast, temperature=self.options.temperature)
            values.append(value)
            monitors[f"accuracy_{name}"] = right.sum() / max(1, len(right))
            monitors[f"unit_deviation_{name}"] = unit_deviation(keys)
            monitors[f"effective_rank_{name}"] = effective_rank(keys)
        if self.training:
            for queue, keys in zip(self.queues, stored, strict=True):
                assert isinstance(queue, Queue)
                queue.enqueue(keys)
        count = values[0].new_full((), len(views.query.place))
        return Loss(torch.stack(values).sum(), count, monitors)

    def follow(self, *, momentum: float) -> None:
        """Move the key encoder and its heads towards the query's: parameters, not the statistics of batch norms."""
        follow(self.key_encoder, self.encoder, momentum=momentum)
        follow(self.key_heads, self.heads, momentum=momentum)

    def catch_up(self) -> None:
        """The key side becomes the query's, with its normalization and the statistics of its batch norms."""
        self.key_encoder.load_state_dict(self.encoder.state_dict())
        self.key_heads.load_state_dict(self.heads.state_dict())

    def contrasts(self, views: KeyViews) -> tuple[tuple[Tensor, ...], tuple[Contrast, ...]]:
        """By sub-space: the keys for the queue, (chips of all processes, channels), and what the queries are held to.

        Negatives are the queue and, after the first sub-space, the other views' keys of the batch, of all processes.
        """
        own = self._keys(views.keys, views.deal.expand(len(views.query.place)))
        flat = [keys for by_view in own for keys in by_view.values()]
        parts = iter(self.compared(torch.cat(flat, dim=1)).chunk(len(flat), dim=1))  # from (B, pairs * D)
        every = [{view: next(parts) for view in by_view} for by_view in own]
        pooled = embed_chips(self.encoder, views.query)
        stored, contrasts = [], []
        for i, (head, queue) in enumerate(zip(self.heads, self.queues, strict=True)):
            assert isinstance(queue, Queue)
            query = _unit(head(pooled))
            others = tuple(keys for view, keys in every[i].items() if view != i)
            contrasts.append(Contrast(query, own[i][i], (queue.keys, *others)))
            stored.append(every[i][i])
        return tuple(stored), tuple(contrasts)

    @torch.no_grad()
    def _keys(self, samples: tuple[Sample, ...], deal: Tensor) -> list[dict[int, Tensor]]:
        """By sub-space and number of the view: keys (B, channels). The first one needs its own view alone."""

        def encode(sample: Sample) -> Tensor:
            return embed_chips(self.key_encoder, sample)

        apart = self.apart if self.training else here
        pooled = [apart(encode, sample, deal) for sample in samples]  # one by one: batch norms count each view
        return [
            {view: _unit(head(pooled[view])) for view in (range(len(pooled)) if i else (0,))}
            for i, head in enumerate(self.key_heads)
        ]


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return build_projection(inputs, hidden=(inputs,), outputs=outputs, kind="vector", batch_norm=False)


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (N, D) of length 1, in float32 at least."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)
