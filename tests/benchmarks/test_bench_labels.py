"""Labels of some 2 500 parcels in 1020 x 1020 pixels on one thread, against rasterio and exactextract in the same run.

`extra_info` of each benchmark holds `parcels`; the time divided by it is the figure of docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import shapely
from affine import Affine
from exactextract import exact_extract
from exactextract.feature import GeoPandasFeatureSource
from exactextract.raster import NumPyRasterSource
from geopandas import GeoDataFrame
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize as rasterio_rasterize

from sits_catalog.region import LabelRule
from sits_pipeline.steps.rasterize import rasterize
from sits_pipeline.steps.rasterize.coverage import pixel_shares
from sits_pipeline.steps.rasterize.distance import boundary_distance
from sits_pipeline.steps.rasterize.lattice import lattice_of
from sits_pipeline.values import Parcels

SIDE = 1020
LEFT, TOP = 523560, 4832780
GRID = GeoBox((SIDE, SIDE), Affine(10, 0, LEFT, 0, -10, TOP), "EPSG:32631")
KNOWN = shapely.buffer(shapely.Point(LEFT + SIDE * 5, TOP - SIDE * 5), 4500)
GOAL_MS = 0.4

pytestmark = pytest.mark.benchmark(group="labels")


@pytest.fixture(scope="module")
def parcels() -> Parcels:
    """Fields of 4 ha on average with wavy common edges, a vertex every 20 m, a third of them behind a 5 m strip."""
    rng = np.random.default_rng(0)
    corner = np.array([LEFT, TOP - SIDE * 10])
    seeds = shapely.multipoints(corner + rng.uniform(0, SIDE * 10, (2500, 2)))
    ground = shapely.box(*GRID.boundingbox.bbox)
    fields = shapely.intersection(shapely.get_parts(shapely.voronoi_polygons(seeds)), ground)
    fields = shapely.transform(
        shapely.segmentize(fields, 20.0), lambda xy: xy + 6 * np.sin(np.round(xy[:, ::-1], 3) / [37, 41])
    )
    fields[::3] = shapely.buffer(fields[::3], -2.5)
    fields = fields[(shapely.get_type_id(fields) == 3) & shapely.is_valid(fields)]
    n = len(fields)
    assert n > 2400
    return Parcels(
        epsg=32631,
        parcel_id=np.arange(1, n + 1, dtype=np.uint32),
        source_row=np.arange(n),
        crop_type=rng.integers(1, 13, n).astype(np.uint16),
        geometry=fields,
    )


@pytest.fixture
def measure(benchmark, parcels) -> Iterator:
    benchmark.extra_info["parcels"] = len(parcels)
    return lambda work: benchmark.pedantic(work, rounds=5, warmup_rounds=1)


def test_all_layers_cost_at_most_the_goal(measure, benchmark, parcels):
    labels = measure(lambda: rasterize(parcels, GRID, rule=LabelRule(), known=KNOWN))
    assert np.count_nonzero(labels.parcel_id) > 0.8 * SIDE**2
    if benchmark.enabled:
        assert benchmark.stats.stats.median / len(parcels) * 1000 <= GOAL_MS


def test_coverage(measure, parcels):
    shares = measure(lambda: pixel_shares(parcels.geometry, lattice_of(GRID)))
    inside = shapely.intersection(parcels.geometry, shapely.box(*GRID.boundingbox.bbox))
    assert shares.share.sum() / 1e7 == pytest.approx(shapely.area(inside).sum(), rel=1e-7)


def test_boundary_distance(measure, parcels):
    assert np.isfinite(measure(lambda: boundary_distance(parcels.geometry, lattice_of(GRID)))).mean() > 0.9


def test_the_centre_rule_of_rasterio_for_class_and_number(measure, parcels):
    def two_layers():
        for values in (parcels.crop_type, parcels.parcel_id):
            pairs = zip(parcels.geometry, values.tolist(), strict=True)
            burnt = rasterio_rasterize(pairs, out_shape=GRID.shape, transform=GRID.affine, dtype=np.uint32)
        return burnt

    assert np.count_nonzero(measure(two_layers)) > 0.8 * SIDE**2


def test_the_coverage_of_exactextract(measure, parcels):
    fields = GeoDataFrame(geometry=parcels.geometry, crs=parcels.epsg)
    zeros = np.zeros((SIDE, SIDE), np.uint8)
    raster = NumPyRasterSource(zeros, *GRID.boundingbox.bbox, srs_wkt=fields.crs.to_wkt())
    features = GeoPandasFeatureSource(fields)
    found = measure(lambda: exact_extract(raster, features, ["cell_id", "coverage"], output="pandas"))
    assert len(found) == len(parcels)
