"""Whether an item's pixels still hold the BOA offset: judged once an item, on the pixels, against what metadata say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sits_catalog.sentinel2 import BOA_OFFSET, Scl, has_boa_offset
from sits_pipeline.values import AuditSample, Scene, Verdict

__all__ = ["MIN_PIXELS", "audit_offset"]

MIN_PIXELS = 500
"""Fewer pixels of a kind decide nothing."""
REMOVED_BELOW = 1000
"""Both medians below: no offset in the pixels. Vegetation is dark in blue and red, and the offset itself is 1000."""
PRESENT_FROM = 1050
"""Both medians from here on: the offset is still in the pixels."""

_KINDS = ((Scl.VEGETATION, ("B02", "B04"), "vegetation"), (Scl.WATER, ("B8A", "B11"), "water"))
"""What is looked at, in this order: the second where there is too little of the first."""


def audit_offset(scene: Scene, sample: AuditSample | None) -> Verdict:
    """The offset to add to an item's DN, after a look at a sample of its pixels (None: it could not be read).

    Where pixels are clear they decide, unless the provider's rule is certain: then the item is refused. Where they
    are not, the provider's rule applies and the reason says so.
    """
    if sample is None:
        return _unread(scene)
    medians, n_pixels, kind = _medians(sample)
    audited = _read_offset(scene.baseline, medians)
    if audited is None:
        reason = (
            f"{_why_undecided(scene, medians, n_pixels, kind)}; the provider's rule ({scene.declared_offset}) applies"
        )
    elif audited == scene.declared_offset:
        reason = ""
    else:
        reason = _contradiction(scene, audited, medians, kind)
    refused = audited is not None and audited != scene.declared_offset and scene.offset_is_firm
    return Verdict(
        declared=scene.declared_offset,
        audited=audited,
        applied=scene.declared_offset if audited is None else audited,
        medians=medians,
        n_pixels=n_pixels,
        refused=refused,
        reason=reason,
    )


def _unread(scene: Scene) -> Verdict:
    """The rule of whoever wrote local files stands where it is firm; what a network did not bring is asked for again.

    A network fails for a moment: pixels that contradict the rule would be in the cube, and the next run would refuse
    the item. A local file that cannot be read stays so until somebody mends it.
    """
    stands = scene.offset_is_firm and not _is_remote(scene)
    if stands:
        rule = f"the provider's rule ({scene.declared_offset}) applies"
    elif scene.offset_is_firm:
        rule = "the item counts as unread until it can be looked at"
    else:
        rule = "the provider's rule is not certain, so the item counts as unread"
    return Verdict(
        declared=scene.declared_offset,
        audited=None,
        applied=scene.declared_offset if stands else None,
        medians={},
        n_pixels=0,
        refused=False,
        reason=f"the sample for the audit could not be read; {rule}",
    )


def _is_remote(scene: Scene) -> bool:
    return any("://" in address for address in scene.assets.values())


def _medians(sample: AuditSample) -> tuple[Mapping[str, float], int, str]:
    """Median DN a band over the first kind of pixels of which there are enough, their number, and the kind."""
    if sample.scl is None:
        return {}, 0, "classified"
    counts = []
    for code, bands, kind in _KINDS:
        if not sample.dn.keys() >= set(bands):
            continue
        chosen = sample.scl == code
        for band in bands:
            chosen &= sample.dn[band] > 0
        n_pixels = int(np.count_nonzero(chosen))
        if n_pixels >= MIN_PIXELS:
            return {band: float(np.median(sample.dn[band][chosen])) for band in bands}, n_pixels, kind
        counts.append((n_pixels, kind))
    n_pixels, kind = max(counts, default=(0, "classified"))
    return {}, n_pixels, kind


def _read_offset(baseline: str, medians: Mapping[str, float]) -> int | None:
    """The offset that the pixels ask for; None where they do not say."""
    if not medians:
        return None
    if all(median < REMOVED_BELOW for median in medians.values()):
        return 0
    if has_boa_offset(baseline) and all(median >= PRESENT_FROM for median in medians.values()):
        return BOA_OFFSET
    return None


def _why_undecided(scene: Scene, medians: Mapping[str, float], n_pixels: int, kind: str) -> str:
    if not medians:
        return f"too few pixels to audit the offset ({n_pixels} of {kind}, {MIN_PIXELS} are needed)"
    if not has_boa_offset(scene.baseline) and min(medians.values()) >= PRESENT_FROM:
        return f"bright {kind} ({_say(medians)}) at baseline {scene.baseline}, which has no offset"
    return f"medians over {kind} do not agree on an offset ({_say(medians)})"


def _contradiction(scene: Scene, audited: int, medians: Mapping[str, float], kind: str) -> str:
    found = "no offset is left in the pixels" if audited == 0 else f"the pixels still hold the offset of {-audited}"
    rule = f"{scene.provider} at baseline {scene.baseline} asks for {scene.declared_offset}"
    end = "the item is not used" if scene.offset_is_firm else "the pixels decide"
    return f"{rule}, but {found} (median over {kind}: {_say(medians)}); {end}"


def _say(medians: Mapping[str, float]) -> str:
    return ", ".join(f"{band} {median:g}" for band, median in medians.items())
