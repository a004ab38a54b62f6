"""What the few-label table compares: starts of one backbone beside each other, in one region, and from another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["COMPARISONS", "ELSEWHERE", "HERE", "SEEDS", "SHARES", "Comparison", "Pretraining", "Start", "pretrainings"]

HERE, ELSEWHERE = "few-temperate", "few-mediterranean"
"""Where all is finetuned and tested, and where a cross-region start was pretrained."""
SEEDS = (0, 1, 2)
SHARES = (0.01, 0.05, 0.1, 1.0)
_MAIN = (0.01, 0.1, 1.0)


@dataclass(frozen=True, kw_only=True)
class Start:
    """A pretraining with every seed."""

    name: str
    recipe: str
    """A file of this folder without its ending."""
    region: str = HERE
    labelled: bool = False
    """Whether it reads labels: it is then shown those of the finetuning, and no other ones."""
    changes: tuple[str, ...] = ()
    """As `--set` takes them."""

    @property
    def folder(self) -> str:
        """Of its weights, with a {seed} and, where labels are read, a {share}."""
        return f"{self.name}-{{share}}-{{seed}}" if self.labelled else f"{self.name}-{{seed}}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One command of the few-label protocol."""

    name: str
    title: str
    recipe: str
    """Of the finetuning, a file of this folder without its ending."""
    starts: tuple[Start, ...]
    shares: tuple[float, ...] = SHARES
    modes: tuple[str, ...] = ("finetune",)
    changes: tuple[str, ...] = ()
    """Of the recipe of the finetuning, as `--set` takes them."""


_CSCL = Start(name="cscl", recipe="pretrain-cscl", labelled=True)
_CSCL_OF_ALL = Start(name="cscl-of-all-labels", recipe="pretrain-cscl")
_EARTH = Start(name="embedding-earth", recipe="pretrain-embedding-earth")
_EARTH_ELSEWHERE = Start(name="embedding-earth-elsewhere", recipe="pretrain-embedding-earth", region=ELSEWHERE)
_GLCNET = Start(name="glcnet", recipe="pretrain-glcnet")
_SECO = Start(name="seco", recipe="pretrain-seco")
_SECO_ELSEWHERE = Start(name="seco-elsewhere", recipe="pretrain-seco", region=ELSEWHERE)


def _choice(name: str, *changes: str) -> Start:
    """Embedding Earth with one choice made otherwise, in half the steps."""
    return Start(name=name, recipe="pretrain-embedding-earth", changes=("data.chips=320", *changes))


COMPARISONS = (
    Comparison(
        name="utae",
        title="U-TAE, segmentation of series",
        recipe="finetune-utae",
        starts=(_CSCL, _EARTH),
        shares=_MAIN,
    ),
    Comparison(
        name="deeplab",
        title="DeepLabV3+, segmentation of one date",
        recipe="finetune-deeplab",
        starts=(_GLCNET,),
        shares=_MAIN,
    ),
    Comparison(
        name="resnet",
        title="ResNet-18, classification of parcels on one date",
        recipe="finetune-resnet",
        starts=(_SECO,),
        shares=_MAIN,
    ),
    Comparison(
        name="utae-more",
        title="U-TAE: more shares, probes, and weights of another region",
        recipe="finetune-utae",
        starts=(_EARTH, _EARTH_ELSEWHERE),
        modes=("finetune", "probe"),
    ),
    Comparison(
        name="resnet-more",
        title="ResNet-18: more shares, probes, and weights of another region",
        recipe="finetune-resnet",
        starts=(_SECO, _SECO_ELSEWHERE),
        modes=("finetune", "probe"),
    ),
    Comparison(
        name="labels",
        title="CSCL shown all labels in its pretraining, where the finetuning sees few",
        recipe="finetune-utae",
        starts=(_CSCL_OF_ALL,),
        shares=(0.01, 0.1),
    ),
    Comparison(
        name="resnet-gentle",
        title="ResNet-18: a tenth of the rate in finetuning",
        recipe="finetune-resnet",
        starts=(_SECO,),
        shares=(0.01,),
        changes=("training.learning_rate=2e-4",),
    ),
    Comparison(
        name="deeplab-gentle",
        title="DeepLabV3+: a tenth of the rate in finetuning",
        recipe="finetune-deeplab",
        starts=(_GLCNET,),
        shares=(0.01,),
        changes=("training.learning_rate=2e-4",),
    ),
    Comparison(
        name="deeplab-long",
        title="DeepLabV3+: three times the steps in finetuning",
        recipe="finetune-deeplab",
        starts=(_GLCNET,),
        shares=(0.01,),
        changes=("training.epochs=30",),
    ),
    Comparison(
        name="choices",
        title="Embedding Earth: one choice made otherwise at a time, in half the steps",
        recipe="finetune-utae",
        starts=(
            _choice("as-above"),
            _choice("all-negatives", "embedding_earth.negatives=all"),
            _choice("all-but-near", "embedding_earth.negatives=all", "embedding_earth.radius=6"),
            _choice("narrow", "embedding_earth.hidden=8", "embedding_earth.channels=8"),
            _choice("shared-encoder", "embedding_earth.key=shared"),
            _choice("temperature-0.3", "embedding_earth.temperature=0.3"),
            _choice("all-dates", "embedding_earth.dates={}"),
            _choice("no-geometry", "embedding_earth.geometry={sides: [24], flips: [0, 0, 0], turns: 0}"),
        ),
        shares=(0.01,),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Weights to start from."""

    folder: str
    recipe: str
    region: str
    changes: tuple[str, ...]


def pretrainings(comparison: Comparison) -> Iterator[Pretraining]:
    """Those that a comparison starts from."""
    for start in comparison.starts:
        for seed in SEEDS:
            for share in comparison.shares if start.labelled else (1.0,):
                few = (f"data.few={{share: {share:g}, by: parcel, seed: {seed}}}",) if start.labelled else ()
                yield Pretraining(
                    folder=start.folder.format(seed=seed, share=f"{share:g}"),
                    recipe=start.recipe,
                    region=start.region,
                    changes=(f"training.seed={seed}", *few, *start.changes),
                )
