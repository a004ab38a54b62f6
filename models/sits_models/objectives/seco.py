"""Seasonal contrast (SeCo): what a chip shows, what its season changes and what colours change, in sub-spaces.

Mañas, Lacoste, Giró-i-Nieto, Vazquez and Rodríguez, "Seasonal contrast: unsupervised pre-training from uncurated remote
sensing data", ICCV 2021; code: ServiceNow/seasonal-contrast. Deliberate differences: a queue wraps around at any
length, and with several processes the keys of the batch are those of all, not of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look, draw_single
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.info_nce import Contrast, info_nce
from sits_models.objectives.momentum import follow, follower
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

    def __post_init__(self) -> None:
        chips = [len(sample.place) for sample in (self.query, *self.keys)]
        if len(set(chips)) != 1:
            raise ValueError(f"a query and its keys are views of as many chips; got {', '.join(map(str, chips))}")


class SeasonalContrast(Objective[KeyViews]):
    """An encoder whose chips find themselves among others: heads into sub-spaces, a key side that follows, queues.

    In training `loss` first moves the key side, and puts the batch's keys into the queues in the end; otherwise it
    changes nothing. Weights that are loaded into `encoder` alone reach the key side by `follow(momentum=0.0)`.
    """

    apart: Apart
    """How the keys' chips are encoded, in training: `here`, or `Shuffled` among processes."""

    def __init__(self, encoder: Encoder, options: SeCoRecipe) -> None:
        """Raises ValueError for an encoder of finer labels."""
        super().__init__()
        if encoder.magnification != 1:
            raise ValueError(
                f"a seasonal contrast compares whole chips, so that labels {encoder.magnification} times finer are no "
                "use to it: set data.labels=1"
            )
        self.options = options
        self.sub_spaces = SUB_SPACES[options.mode]
        self.encoder = encoder
        self.heads = nn.ModuleList(_head(encoder.channels, options.channels) for _ in self.sub_spaces)
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

        def look(date: Sample, *, coloured: bool) -> Sample:
            geometry = replace(options.geometry, flips=options.flips) if coloured else options.geometry
            return draw_look(date, geometry, options.photometry if coloured else None, draws).sample.take(there)

        if options.mode != "seco":
            return KeyViews(look(dates[0], coloured=True), (look(dates[-1], coloured=True),))
        keys = look(dates[1], coloured=True), look(dates[2], coloured=False), look(dates[0], coloured=True)
        return KeyViews(look(dates[0], coloured=False), keys)

    def loss(self, views: KeyViews) -> Loss:
        """The sum over the sub-spaces of the cross entropies of the positives among all keys; its count is of queries.

        Monitors, by sub-space: `accuracy`, how often the positive is the key most alike, and of the batch's keys the
        `spread` around their mean, from 0 to 1, and the `rank`, in how many directions they spread. Embeddings that
        collapse have a spread near 0 or a rank near 1.
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
            monitors[f"spread_{name}"], monitors[f"rank_{name}"] = _spread_and_rank(keys)
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

    def contrasts(self, views: KeyViews) -> tuple[tuple[Tensor, ...], tuple[Contrast, ...]]:
        """By sub-space: the keys for the queue, (chips of all processes, channels), and what the queries are held to.

        Negatives are the queue and, after the first sub-space, the other views' keys of the batch, of all processes.
        """
        own = self._keys(views.keys)
        every = own
        if self.training:
            flat = [keys for by_view in own for keys in by_view.values()]
            parts = iter(self.gathered(torch.cat(flat, dim=1)).chunk(len(flat), dim=1))  # from (B, pairs * D)
            every = [{view: next(parts) for view in by_view} for by_view in own]
        pooled = _pooled(self.encoder, views.query)
        stored, contrasts = [], []
        for i, (head, queue) in enumerate(zip(self.heads, self.queues, strict=True)):
            assert isinstance(queue, Queue)
            query = _unit(head(pooled))
            others = tuple(keys for view, keys in every[i].items() if view != i)
            contrasts.append(Contrast(query, own[i][i], (queue.keys, *others)))
            stored.append(every[i][i])
        return tuple(stored), tuple(contrasts)

    @torch.no_grad()
    def _keys(self, samples: tuple[Sample, ...]) -> list[dict[int, Tensor]]:
        """By sub-space and number of the view: keys (B, channels). The first one needs its own view alone."""

        def encode(sample: Sample) -> Tensor:
            return _pooled(self.key_encoder, sample)

        apart = self.apart if self.training else here
        pooled = [apart(encode, sample) for sample in samples]  # one by one: batch norms count each view
        return [
            {view: _unit(head(pooled[view])) for view in (range(len(pooled)) if i else (0,))}
            for i, head in enumerate(self.key_heads)
        ]


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, outputs))


def _pooled(encoder: Encoder, sample: Sample) -> Tensor:
    embedded: Tensor = encoder(sample)  # (B, D, H, W)
    return embedded.mean(dim=(2, 3))


def _unit(vectors: Tensor) -> Tensor:
    """Vectors (N, D) of length 1, in float32 at least."""
    return functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=1)


def _spread_and_rank(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Of unit vectors (N, D): the root of the trace of their covariance C, and tr(C)^2 / tr(C^2), 0 where C is 0.

    The second, the participation ratio, is k where they spread alike in k directions, and needs no decomposition.
    """
    centred = keys - keys.sum(dim=0) / max(1, len(keys))
    covariance = centred.T @ centred / max(1, len(keys))  # (D, D)
    trace, squares = covariance.trace(), covariance.square().sum()
    return trace.sqrt(), torch.where(squares > 0, trace.square() / squares, 0.0)
