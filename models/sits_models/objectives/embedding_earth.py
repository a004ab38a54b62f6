"""Embedding Earth: the same ground pixel in two views of a series, against all other sampled pixels of the batch.

Tarasiou and Zafeiriou, "Embedding Earth: self-supervised contrastive pre-training for dense land cover classification",
arXiv 2203.06041, 2022. Of its method the abstract alone is public, and no code: contrastive pretraining for dense
segmentation, whose weights start a supervised training. A third party's summary adds instance discrimination of pixels,
augmentations of a sample and of a batch, and two encoders.

All else here is our choice, and open to options: which pixels are negatives, and that near ones of an image may be left
out; that the loss is NT-Xent, over the keys of the other view alone, of both directions; its temperature; that the
second encoder is a running mean of the first one (MoCo) or the same network (SimCLR); the two layers of the projection,
and that its batch normalisation sees the sampled pixels alone, each view by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from sits_models.data.dates import draw_dates
from sits_models.data.draws import Draws
from sits_models.data.looks import draw_look
from sits_models.data.matches import match_pixels
from sits_models.encoder import Encoder
from sits_models.objectives.base import Loss, Objective
from sits_models.objectives.collapse import effective_rank
from sits_models.objectives.gathering import own_rows
from sits_models.objectives.momentum import follow, follower
from sits_models.objectives.nt_xent import contrast
from sits_models.objectives.projection import build_projection
from sits_models.objectives.sampled_pixels import NearPixels, SampledPixels
from sits_models.recipe import Augmentation, EmbeddingEarthRecipe
from sits_models.sample import Sample

__all__ = [
    "EmbeddingEarth",
    "MatchedViews",
]


@dataclass(frozen=True, kw_only=True)
class MatchedViews:
    """Two views of B chips, and n pixels of each chip that both show."""

    first: Sample
    second: Sample
    first_pixel: Tensor
    """(B, n) int64: row * width + column in the first view. Where it does not count, anything."""
    second_pixel: Tensor
    """The same ground in the second view."""
    counted: Tensor
    """(B, n) bool: a pixel that both views show; False where a chip has fewer than n of these."""
    ground: Tensor
    """(B, n, 2) int64: row and column on the ground, in the grid of the chip before it was changed."""

    def __post_init__(self) -> None:
        b, n = self.counted.shape
        expected = {"first_pixel": (b, n), "second_pixel": (b, n), "ground": (b, n, 2)}
        for name, shape in expected.items():
            found = tuple(getattr(self, name).shape)
            if found != shape:
                raise ValueError(f"{name} of {b} chips with {n} pixels each is {shape}; got {found}")
        chips = (self.first.image.shape[0], self.second.image.shape[0])
        if chips != (b, b):
            raise ValueError(f"two views of {b} chips have as many each; got {chips[0]} and {chips[1]}")


class EmbeddingEarth(Objective[MatchedViews]):
    """An encoder whose embedding of a pixel is the same in both views, and another than that of all other pixels."""

    def __init__(self, encoder: Encoder, *, options: EmbeddingEarthRecipe) -> None:
        """Raises ValueError for an encoder that does not give an embedding of each pixel of 10 m."""
        super().__init__()
        check_encoder(encoder)
        self.encoder = encoder
        self.options = options
        self.projection = build_projection(
            encoder.channels,
            hidden=(options.hidden or encoder.channels,),
            outputs=options.channels or encoder.channels,
            kind="vector",
            batch_norm=True,
        )
        momentum = options.key == "momentum"
        self.key_encoder = follower(encoder) if momentum else None
        self.key_projection = follower(self.projection) if momentum else None

    def views(self, sample: Sample, augmentation: Augmentation, draws: Draws) -> MatchedViews:  # noqa: ARG002
        """Two views, drawn alike, and the pixels that both show; the recipe's section says how."""
        options = self.options
        first, second = (
            draw_look(draw_dates(sample, options.dates, draws), options.geometry, options.photometry, draws)
            for _ in range(2)
        )
        found = match_pixels(first, second, options.pixels, draws, apart=options.apart)
        width = sample.image.shape[-1]
        return MatchedViews(
            first=first.sample,
            second=second.sample,
            first_pixel=found.first,
            second_pixel=found.second,
            counted=found.found,
            ground=torch.stack([found.ground // width, found.ground % width], dim=2),
        )

    def loss(self, views: MatchedViews) -> Loss:
        """The mean over the queries of both directions: pixels of a view, whose positive is the same in the other one.

        Watched: the share of queries that are more alike to their positive than to any negative, and the effective
        rank of the queries. While training a second network first moves towards the first one.
        """
        # One pixel has no negative, nor has batch normalisation a deviation of one value.
        counted = views.counted & (views.counted.sum() > 1)
        chips, slots = counted.nonzero(as_tuple=True)  # (N,)
        shown = [
            (views.first, views.first_pixel[chips, slots]),
            (views.second, views.second_pixel[chips, slots]),
        ]
        queries = [
            _vectors(self.encoder, self.projection, sample, chips=chips, pixels=pixels) for sample, pixels in shown
        ]
        keys = queries
        if self.key_encoder is not None and self.key_projection is not None:
            self._follow()
            with torch.no_grad():
                keys = [
                    _vectors(self.key_encoder, self.key_projection, sample, chips=chips, pixels=pixels)
                    for sample, pixels in shown
                ]
        joined = self._joined(torch.stack(keys, dim=1), counted, views.ground)
        self._check_images(joined.images)
        return self._both_directions(queries, joined)

    def catch_up(self) -> None:
        """The second network becomes the first, with its normalization and the statistics of its batch norms."""
        if self.key_encoder is not None and self.key_projection is not None:
            self.key_encoder.load_state_dict(self.encoder.state_dict())
            self.key_projection.load_state_dict(self.projection.state_dict())

    def _both_directions(self, queries: list[Tensor], joined: _Joined) -> Loss:
        near = NearPixels.of(
            joined.pixels.at(joined.own),
            joined.pixels,
            radius=self.options.radius,
            other_images=self.options.negatives == "other_images",
        )
        found = [
            contrast(one, joined.keys[:, other], joined.own, temperature=self.options.temperature, no_negative=near)
            for one, other in ((queries[0], 1), (queries[1], 0))
        ]
        with torch.no_grad():
            count = torch.tensor(2 * len(joined.own), device=joined.own.device)
            if joined.images < 2 and self.options.negatives == "other_images":
                count = torch.zeros_like(count)
            right = (found[0].right + found[1].right) / (2 * max(1, len(joined.own)))
            monitors = {"accuracy": right, "effective_rank": effective_rank(torch.cat(queries))}
        return Loss((found[0].value + found[1].value) / 2, count, monitors)

    def _follow(self) -> None:
        if self.training:
            assert self.key_encoder is not None
            assert self.key_projection is not None
            follow(self.key_encoder, self.encoder, momentum=self.options.momentum)
            follow(self.key_projection, self.projection, momentum=self.options.momentum)

    def _joined(self, keys: Tensor, counted: Tensor, ground: Tensor) -> _Joined:
        """The keys (N, 2, D) of this process, with those of all others."""
        # Chip by chip, for then only the number of chips may differ between the processes.
        b, n = counted.shape
        rows = own_rows(b, self.compared, device=counted.device)
        facts = [ground, counted[:, :, None]]
        every = self.compared(torch.cat([fact.to(torch.int64) for fact in facts], dim=2))  # (chips, n, 3)
        laid_out = keys.new_zeros(b, n, *keys.shape[1:]).index_put(counted.nonzero(as_tuple=True), keys)
        all_keys = self.compared(laid_out)
        image, slot = every[:, :, 2].nonzero(as_tuple=True)
        return _Joined(
            keys=all_keys[image, slot],
            pixels=SampledPixels(image=image, ground=every[image, slot, :2]),
            own=((image >= rows.start) & (image < rows.stop)).nonzero()[:, 0],
            images=len(every),
        )

    def _check_images(self, images: int) -> None:
        if self.training and images < 2 and self.options.negatives == "other_images":
            raise ValueError(
                f"negatives of other images need two chips a batch at least; got {images}: raise data.batch, or set "
                "negatives to all"
            )


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """Keys of all processes."""

    keys: Tensor
    """(M, 2, D): of both views."""
    pixels: SampledPixels
    """What they show; images are numbered over all processes."""
    own: Tensor
    """(N,) int64: those of this process, in its order."""
    images: int


def check_encoder(encoder: Encoder) -> None:
    """Raises ValueError for an encoder that does not give an embedding of each pixel of 10 m."""
    backbone, name = encoder.backbone, type(encoder.backbone).__name__
    if backbone.stride != 1:
        what = f"for {backbone.stride} x {backbone.stride} pixels" if backbone.stride else "for the whole chip"
        raise ValueError(
            f"Embedding Earth contrasts single pixels and {name} gives one embedding {what}: choose a dense backbone"
        )
    if backbone.head == "none":
        raise ValueError(
            f"Embedding Earth contrasts embeddings and this {name} gives logits: build it without a number of outputs"
        )
    if encoder.magnification != 1:
        raise ValueError(
            f"Embedding Earth contrasts pixels of 10 m and this encoder makes them {encoder.magnification} times "
            "finer: set data.labels=1"
        )


def _vectors(encoder: Encoder, projection: nn.Module, sample: Sample, *, chips: Tensor, pixels: Tensor) -> Tensor:
    """The projected embeddings (N, D) of pixels of chips (N,); what is not sampled is not projected."""
    embedded = encoder(sample)
    # (B, C, H*W) to (N, C): by index and not by `gather`, whose gradient adds up in any order on a GPU.
    return cast(Tensor, projection(embedded.flatten(2)[chips, :, pixels]))
