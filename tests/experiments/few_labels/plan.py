"""What the few-label table compares: starts of one backbone beside each other, in one region, and from another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["COMPARISONS", "ELSEWHERE", "HERE", "SEEDS", "SHARES", "Comparison", "Pretraining", "pretrainings"]

HERE, ELSEWHERE = "few-temperate", "few-mediterranean"
"""Where all is finetuned and tested, and where a cross-region start was pretrained."""
SEEDS = (0, 1, 2)
SHARES = (0.01, 0.05, 0.1, 1.0)
_MAIN = (0.01, 0.1, 1.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One command of the few-label protocol."""

    name: str
    title: str
    recipe: str
    """Of the finetuning, a file of this folder without its ending."""
    starts: tuple[tuple[str, str], ...]
    """Name and folder of the pretrained weights, of a {seed} and, where labels were learnt from, a {share}."""
    shares: tuple[float, ...] = SHARES
    modes: tuple[str, ...] = ("finetune",)


COMPARISONS = (
    Comparison(
        name="utae",
        title="U-TAE, segmentation of series",
        recipe="finetune-utae",
        starts=(
            ("cscl", "cscl-{share}-{seed}"),
            ("embedding-earth", "embedding-earth-{seed}"),
        ),
        shares=_MAIN,
    ),
    Comparison(
        name="deeplab",
        title="DeepLabV3+, segmentation of one date",
        recipe="finetune-deeplab",
        starts=(("glcnet", "glcnet-{seed}"),),
        shares=_MAIN,
    ),
    Comparison(
        name="resnet",
        title="ResNet-18, classification of parcels on one date",
        recipe="finetune-resnet",
        starts=(("seco", "seco-{seed}"),),
        shares=_MAIN,
    ),
    Comparison(
        name="utae-more",
        title="U-TAE, segmentation of series: more shares, probes, and weights of another region",
        recipe="finetune-utae",
        starts=(
            ("embedding-earth", "embedding-earth-{seed}"),
            ("embedding-earth-elsewhere", "embedding-earth-elsewhere-{seed}"),
        ),
        modes=("finetune", "probe"),
    ),
    Comparison(
        name="resnet-more",
        title="ResNet-18, classification of parcels: more shares, probes, and weights of another region",
        recipe="finetune-resnet",
        starts=(("seco", "seco-{seed}"), ("seco-elsewhere", "seco-elsewhere-{seed}")),
        modes=("finetune", "probe"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Weights to start from."""

    folder: str
    recipe: str
    """A file of this folder without its ending."""
    region: str
    changes: tuple[str, ...]
    """As `--set` takes them."""


def pretrainings(comparison: Comparison) -> Iterator[Pretraining]:
    """Those that a comparison starts from, each once."""
    for name, template in comparison.starts:
        method = name.removesuffix("-elsewhere")
        for seed in SEEDS:
            for share in comparison.shares if "{share}" in template else (None,):
                # Who reads labels is shown those of the finetuning, and no other ones.
                few = () if share is None else (f"data.few={{share: {share:g}, by: parcel, seed: {seed}}}",)
                yield Pretraining(
                    folder=template.format(seed=seed, share=share if share is None else f"{share:g}"),
                    recipe=f"pretrain-{method}",
                    region=ELSEWHERE if name.endswith("-elsewhere") else HERE,
                    changes=(f"training.seed={seed}", *few),
                )
