"""A training step of each backbone against a plain transcription of its description: same weights, same batch."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from tests.benchmarks.measure import run_fresh
from tests.benchmarks.table import Table
from tests.benchmarks.transcriptions.biconvrnn import ConvGRU, ConvLSTM, PlainBiConvRNN
from tests.benchmarks.transcriptions.deeplab import PlainDeepLab
from tests.benchmarks.transcriptions.resnet import PlainResNet
from tests.benchmarks.transcriptions.tsvit import PlainTSViT, PlainTSViTcls
from tests.benchmarks.transcriptions.unet2d_clstm import PlainUNet2DCLSTM
from tests.benchmarks.transcriptions.unet3d import PlainUNet3D, PlainUNet3Df
from tests.benchmarks.transcriptions.utae import PlainUTAE
from torch import Tensor, nn
from torch.nn import functional

from sits_models.backbones import list_backbones
from sits_models.backbones.base import TimeChannel, with_time_channels
from sits_models.objectives import Objective, build_objective
from sits_models.recipe import (
    BackboneRecipe,
    ClassificationRecipe,
    DataRecipe,
    Recipe,
    SegmentationRecipe,
    TransformerRecipe,
)
from sits_models.sample import IGNORE_INDEX, Sample

__all__ = ["CONTESTS", "Contest", "Pair", "bench", "build_pair", "compare", "make_batch", "run", "smallest"]

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "B01", "B09", "B10")
MEAN, DEVIATION = 5000.0, 2900.0
SHORT, MORE = 0.5, 5
PASTIS_DAY = 17775
"""2018-09-01 in days since 1970-01-01."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A backbone as published, the plain transcription of it, and the size of the batch."""

    label: str
    backbone: str
    plain: Callable[[Contest], nn.Module]
    bands: int
    classes: int
    size: int
    dates: int
    least_dates: int
    """Of the chips of a batch: these have from so many up to `dates` in even steps, the rest is padding."""
    batch: int
    small: tuple[int, int]
    """Size and dates of the smallest batch that shows everything."""
    transformer: TransformerRecipe | None = None
    chip_classes: bool = False
    """Whether a chip has one class."""
    positions: bool = False
    """Whether the transcription takes days beside the bands, since 2018-09-01."""

    @property
    def day_channel(self) -> bool:
        """Whether it takes the day of the year as a last channel."""
        return self.dates > 1 and not self.positions

    @property
    def channels(self) -> int:
        """Of the transcription's input."""
        return self.bands + self.day_channel

    def shape(self) -> str:
        """(B, T, C, H x W)."""
        return f"({self.batch}, {self.dates}, {self.bands}, {self.size} x {self.size})"


_FRANCE = {"bands": 13, "classes": 20, "dates": 16, "least_dates": 16}
_PASTIS = {"bands": 10, "classes": 19, "dates": 60, "least_dates": 33}
_SINGLE = {"bands": 4, "classes": 7, "dates": 1, "least_dates": 1}


def _tsvit(contest: Contest, kind: type[PlainTSViT] | type[PlainTSViTcls]) -> nn.Module:
    sizes = contest.transformer or TransformerRecipe()
    return kind(
        contest.channels,
        size=contest.size,
        classes=contest.classes,
        patch=sizes.patch,
        temporal_depth=sizes.temporal_depth,
        spatial_depth=sizes.spatial_depth,
        heads=sizes.heads,
        dim_head=sizes.head_channels,
    )


def _clstm(contest: Contest, passes: int) -> nn.Module:
    return PlainUNet2DCLSTM(contest.channels, dates=contest.dates, classes=contest.classes, passes=passes)


CONTESTS = (
    Contest(
        label="UNet3D",
        backbone="unet3d",
        plain=lambda c: PlainUNet3D(c.channels, dates=c.dates, classes=c.classes),
        **_FRANCE,
        size=24,
        batch=4,
        small=(8, 4),
    ),
    Contest(
        label="UNet3Df",
        backbone="unet3df",
        plain=lambda c: PlainUNet3Df(c.channels, dates=c.dates, classes=c.classes),
        **_FRANCE,
        size=24,
        batch=4,
        small=(8, 4),
    ),
    Contest(
        label="UNet2D-CLSTM, ConvLSTM evaluated once",
        backbone="unet2d_clstm",
        plain=partial(_clstm, passes=1),
        **_FRANCE,
        size=24,
        batch=4,
        small=(8, 4),
    ),
    Contest(
        label="UNet2D-CLSTM, evaluated twice as published",
        backbone="unet2d_clstm",
        plain=partial(_clstm, passes=2),
        **_FRANCE,
        size=24,
        batch=4,
        small=(8, 4),
    ),
    Contest(
        label="U-TAE",
        backbone="utae",
        plain=lambda c: PlainUTAE(c.channels, classes=c.classes),
        **{**_PASTIS, "classes": 20},
        size=24,
        batch=4,
        small=(16, 4),
        positions=True,
    ),
    Contest(
        label="BiConvGRU",
        backbone="biconvgru",
        plain=lambda c: PlainBiConvRNN(c.channels, ConvGRU, classes=c.classes),
        **_FRANCE,
        size=24,
        batch=2,
        small=(8, 4),
    ),
    Contest(
        label="BiConvLSTM",
        backbone="biconvlstm",
        plain=lambda c: PlainBiConvRNN(c.channels, ConvLSTM, classes=c.classes),
        **_FRANCE,
        size=24,
        batch=2,
        small=(8, 4),
    ),
    Contest(
        label="TSViT, PASTIS",
        backbone="tsvit",
        plain=partial(_tsvit, kind=PlainTSViT),
        **_PASTIS,
        size=24,
        batch=4,
        small=(6, 6),
        transformer=TransformerRecipe(),
    ),
    Contest(
        label="TSViT, France",
        backbone="tsvit",
        plain=partial(_tsvit, kind=PlainTSViT),
        **_FRANCE,
        size=48,
        batch=2,
        small=(6, 4),
        transformer=TransformerRecipe(patch=3, temporal_depth=8, spatial_depth=4, head_channels=64),
    ),
    Contest(
        label="TSViT, a class a chip, PASTIS",
        backbone="tsvit_parcel",
        plain=partial(_tsvit, kind=PlainTSViTcls),
        **_PASTIS,
        size=24,
        batch=4,
        small=(6, 6),
        transformer=TransformerRecipe(patch=3, temporal_depth=8, spatial_depth=4, head_channels=64),
        chip_classes=True,
    ),
    *(
        Contest(
            label=f"ResNet-{layers}",
            backbone=f"resnet{layers}",
            plain=lambda c, layers=layers: PlainResNet(c.channels, layers=layers, classes=c.classes),
            **_SINGLE,
            size=96,
            batch=8,
            small=(33, 1),
            chip_classes=True,
        )
        for layers in (18, 50)
    ),
    *(
        Contest(
            label=f"DeepLabV3+ on ResNet-{layers}",
            backbone=f"deeplab_resnet{layers}",
            plain=lambda c, layers=layers: PlainDeepLab(c.channels, layers=layers, classes=c.classes),
            **_SINGLE,
            size=96,
            batch=4,
            small=(24, 1),
        )
        for layers in (18, 50)
    ),
)
"""At the side and number of dates of the publications; batches that two cores take seconds for."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both with the same weights, and one batch for both."""

    contest: Contest
    ours: Objective
    plain: nn.Module
    sample: Sample
    arguments: tuple[Tensor, ...]
    """What the transcription takes: normalised channels and what else its own data loader would give it."""
    target: Tensor
    """(B, H, W), or (B,) for classes of chips."""

    def our_loss(self) -> Tensor:
        return self.ours.loss(self.sample).value

    def plain_loss(self) -> Tensor:
        return functional.cross_entropy(self.plain(*self.arguments), self.target, ignore_index=IGNORE_INDEX)

    def to(self, device: torch.device) -> Pair:
        """A pair on a device; the models move."""
        return replace(
            self,
            ours=self.ours.to(device),
            plain=self.plain.to(device),
            sample=self.sample.to(device),
            arguments=tuple(argument.to(device) for argument in self.arguments),
            target=self.target.to(device),
        )


def bench(
    *, contests: tuple[Contest, ...], rounds: int, threads: int, small: bool, say: Callable[[str], None]
) -> list[Table]:
    """The table of milliseconds a training step. Raises AssertionError where a pair gives different values."""
    rows = []
    for contest in contests:
        if contest.backbone not in list_backbones():
            continue
        say(f"backbones: {contest.label}")
        result = run_fresh(
            "tests.benchmarks.backbones:run", label=contest.label, rounds=rounds, threads=threads, small=small
        ).result
        shown = smallest(contest) if small else contest
        rows.append((contest.label, shown.shape(), result["ours_ms"], result["plain_ms"], result["ratio"]))
    notes = (
        f"Forward, cross entropy, backward and Adam; {threads} threads, float32; median of {rounds} interleaved "
        f"rounds, {MORE} times as many where a step takes less than {SHORT} s, after one that does not count; 'x ours' "
        "is the median of the rounds' ratios: above 1 ours is faster.",
        "Both have the same weights; logits, loss and gradients agree. Ours takes stored samples and normalises them, "
        "the plain one is given normalised channels.",
    )
    columns = ("backbone", "batch (B, T, C, H x W)", "sits_models, ms", "plain, ms", "plain, x ours")
    return [Table(title="Backbones: a training step", columns=columns, rows=tuple(rows), notes=notes)]


def run(label: str, rounds: int, threads: int, small: bool) -> dict[str, Any]:
    """Milliseconds of a training step of both, and the ratio; both must give the same logits, loss and gradients."""
    torch.set_num_threads(threads)
    (contest,) = (each for each in CONTESTS if each.label == label)
    pair = build_pair(smallest(contest) if small else contest)
    compare(pair)
    steps = {"ours": training_step(pair.ours, pair.our_loss), "plain": training_step(pair.plain, pair.plain_loss)}
    spent: dict[str, list[float]] = {name: [] for name in steps}
    short = all(_seconds(step) < SHORT for step in steps.values())
    for number in range(rounds * (MORE if short else 1)):
        # Each goes first in every other round.
        for name in sorted(steps, reverse=bool(number % 2)):
            spent[name].append(_seconds(steps[name]))
    return {
        **{f"{name}_ms": 1000 * median(values) for name, values in spent.items()},
        "ratio": median(plain / ours for plain, ours in zip(spent["plain"], spent["ours"], strict=True)),
    }


def smallest(contest: Contest) -> Contest:
    """The contest with two chips of the smallest size; the channels stay as published."""
    size, dates = contest.small
    return replace(contest, batch=2, size=size, dates=dates, least_dates=max(1, dates - 1))


def build_pair(contest: Contest, *, seed: int = 0) -> Pair:
    """Both models in train mode, with the weights that the transcription was drawn with, and a batch."""
    torch.manual_seed(seed)
    plain = contest.plain(contest)
    sample = make_batch(contest, seed=seed)
    recipe = Recipe(
        name="benchmark",
        data=DataRecipe(size=contest.size),
        backbone=BackboneRecipe(name=contest.backbone, transformer=contest.transformer),
        segmentation=None if contest.chip_classes else SegmentationRecipe(),
        classification=ClassificationRecipe() if contest.chip_classes else None,
    )
    ours = build_objective(
        recipe,
        bands=sample.bands,
        dates=contest.dates,
        classes=contest.classes,
        mean=[MEAN] * contest.bands,
        std=[DEVIATION] * contest.bands,
    )
    module = importlib.import_module(type(ours.encoder.backbone).__module__)
    missing, unexpected = ours.load_state_dict(module.from_reference(plain.state_dict()), strict=False)
    assert set(missing) <= {"encoder.mean", "encoder.std"}, missing
    assert not unexpected, unexpected
    middle = contest.size // 2
    target = sample.crop[:, middle, middle] if contest.chip_classes else sample.crop
    return Pair(
        contest=contest,
        ours=ours.train(),
        plain=plain.train(),
        sample=sample,
        arguments=_arguments(contest, ours, sample),
        target=target,
    )


def _arguments(contest: Contest, ours: Objective, sample: Sample) -> tuple[Tensor, ...]:
    """What the transcription takes: bands in the dtype of our statistics, the day as it is rounded in float32."""
    with torch.no_grad():
        series = ours.encoder.normalize(sample.image)
    names: tuple[TimeChannel, ...] = ("day_of_year",) if contest.day_channel else ()
    channels, rounded = (with_time_channels(each, sample.valid, sample.day, names) for each in (series, series.float()))
    channels = torch.cat([channels[:, :, : contest.bands], rounded[:, :, contest.bands :].to(series.dtype)], dim=2)
    days = (sample.day - PASTIS_DAY,) if contest.positions else ()
    return channels, sample.valid, *days


def make_batch(contest: Contest, *, seed: int) -> Sample:
    """Reflectance made up at random with some gaps, fields of 6 px, and series from the least to the most dates."""
    draw = torch.Generator().manual_seed(seed)
    b, t, size = contest.batch, contest.dates, contest.size
    image = torch.randint(1, 10_000, (b, t, contest.bands, size, size), generator=draw)
    observed = torch.rand(b, t, size, size, generator=draw) > 0.05
    lengths = torch.linspace(t, contest.least_dates, b).round().to(torch.int64)
    fields = torch.randint(0, contest.classes, (b, -(-size // 6), -(-size // 6)), generator=draw)
    crop = fields.repeat_interleave(6, 1).repeat_interleave(6, 2)[:, :size, :size].clone()
    crop[:, 0] = IGNORE_INDEX
    # One season from autumn to autumn, as PASTIS has it; not the days that the published TSViT for chips cannot take.
    day = 17800 + (torch.arange(t) * 330 // t)
    day += (day >= 17896).to(torch.int64) * 4
    return Sample(
        image=(image * observed[:, :, None]).to(torch.uint16),
        valid=torch.arange(t) < lengths[:, None],
        day=day.to(torch.int32).expand(b, t).contiguous(),
        clear=observed,
        crop=crop,
        counted=torch.ones_like(crop, dtype=torch.bool),
        parcel=crop + 2,
        boundary=torch.full((b, size, size), 100, dtype=torch.int16),
        place=torch.zeros(b, 3, dtype=torch.int64),
        bands=BANDS[: contest.bands],
    )


def compare(pair: Pair) -> None:
    """Raises AssertionError unless both give the same logits, loss and gradients in float64; without dropout."""
    dropouts = {
        module: module.p
        for model in (pair.ours, pair.plain)
        for module in model.modules()
        if isinstance(module, nn.Dropout)
    }
    buffers = [(model, _copies(dict(model.named_buffers()))) for model in (pair.ours, pair.plain)]
    for module in dropouts:
        module.p = 0.0
    try:
        _compare_in_double(pair)
    finally:
        for module, share in dropouts.items():
            module.p = share
        for model, before in buffers:
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
            model.zero_grad()


def _compare_in_double(pair: Pair) -> None:
    # Fifty layers with batch norm over a few pixels make of float32's rounding a thousandth of the logits.
    models = pair.ours.double(), pair.plain.double()
    pair = replace(pair, arguments=_arguments(pair.contest, pair.ours, pair.sample))
    with torch.no_grad():
        ours, plain = pair.ours(pair.sample), pair.plain(*pair.arguments)
    if isinstance(pair.plain, PlainBiConvRNN):
        ours = ours.log_softmax(dim=1)  # which changes no loss
    torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4 * max(1.0, float(plain.abs().max())))
    losses = pair.our_loss(), pair.plain_loss()
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for loss in losses:
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    module = importlib.import_module(type(pair.ours.encoder.backbone).__module__)
    theirs = module.from_reference({**pair.plain.state_dict(), **_gradients(pair.plain)})
    names = [name for name, gradient in _gradients(pair.ours).items() if gradient.any()]
    a, b = (torch.cat([of[name].flatten() for name in names]) for of in (_gradients(pair.ours), theirs))
    # As one vector: biases in front of a norm have gradients that are nothing but rounding.
    assert float(a @ b / (a.norm() * b.norm())) > 0.9999, f"other gradients: {a @ b / (a.norm() * b.norm())}"
    torch.testing.assert_close(a.norm(), b.norm(), rtol=2e-3, atol=0.0)
    for model in models:
        model.float()


def training_step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """A step with its optimiser."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()

    return step


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
