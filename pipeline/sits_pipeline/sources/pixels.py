"""Pixels of a scene whatever its assets are: single-band files, or arrays of one of ESA's Zarr products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from odc.geo.geobox import GeoBox

from sits_pipeline.sources.rasters import read_scene, sample_scene
from sits_pipeline.sources.remote import Opener
from sits_pipeline.values import AuditSample, Raster, Scene

__all__ = ["read_scenes", "sample_any"]


def read_scenes(
    scenes: Sequence[Scene], geobox: GeoBox, bands: Sequence[str], *, pad: int, opener: Opener | None
) -> Iterator[Raster]:
    """A raster a scene, each read when it is asked for."""
    for scene in scenes:
        if _is_zarr(scene):
            from sits_pipeline.sources.eopf import read_product

            yield read_product(scene, geobox, bands, pad=pad, opener=opener)
        else:
            yield read_scene(scene, geobox, bands, pad=pad, opener=opener)


def sample_any(scene: Scene, *, opener: Opener | None) -> AuditSample:
    """Pixels for the audit, thinned over the whole scene; raises OSError."""
    if _is_zarr(scene):
        from sits_pipeline.sources.eopf import sample_product

        return sample_product(scene, opener=opener)
    return sample_scene(scene, opener=opener)


def _is_zarr(scene: Scene) -> bool:
    """Whether its assets are arrays of a Zarr product; a provider's rule may go by another name."""
    return scene.provider == "eopf" or any(".zarr/" in address for address in scene.assets.values())
