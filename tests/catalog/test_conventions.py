from __future__ import annotations

from pyproj import CRS

from sits_catalog.conventions import cf_grid_mapping, georeference

TRANSFORM = (10.0, 0.0, 600000.0, 0.0, -10.0, 4900020.0)


def test_a_node_of_5120_pixels_has_these_attributes() -> None:
    attributes = georeference(32631, TRANSFORM, (5120, 5120))
    conventions = attributes.pop("zarr_conventions")
    assert attributes == {
        "proj:code": "EPSG:32631",
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": [5120, 5120],
        "spatial:transform": [10.0, 0.0, 600000.0, 0.0, -10.0, 4900020.0],
        "spatial:bbox": [600000.0, 4848820.0, 651200.0, 4900020.0],
        "spatial:registration": "pixel",
    }
    assert conventions == [
        {
            "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
            "schema_url": "https://raw.githubusercontent.com/zarr-conventions/proj/refs/tags/v0.1/schema.json",
            "spec_url": "https://github.com/zarr-conventions/proj/blob/v0.1/README.md",
            "name": "proj:",
            "description": "Coordinate reference system information for geospatial data",
        },
        {
            "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
            "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v0.1/schema.json",
            "spec_url": "https://github.com/zarr-conventions/spatial/blob/v0.1/README.md",
            "name": "spatial:",
            "description": "Spatial coordinate information",
        },
    ]


def test_height_comes_first_in_a_shape_and_bounds_run_from_the_south_west() -> None:
    attributes = georeference(32735, (80, 0, 300000, 0, -80, 8000020), (2, 3))
    assert attributes["spatial:shape"] == [2, 3]
    assert attributes["spatial:bbox"] == [300000, 8000020 - 160, 300240, 8000020]
    assert all(isinstance(value, float) for value in attributes["spatial:transform"] + attributes["spatial:bbox"])


def test_the_grid_mapping_holds_the_crs_and_the_transform_in_the_order_of_gdal() -> None:
    crs = CRS.from_epsg(32631)
    attributes = cf_grid_mapping(crs.to_cf(), TRANSFORM)
    assert attributes["GeoTransform"] == "600000 10 0 4900020 0 -10"
    assert attributes["grid_mapping_name"] == "transverse_mercator"
    assert attributes["spatial_ref"] == attributes["crs_wkt"]
    assert CRS.from_wkt(attributes["crs_wkt"]) == crs
    assert CRS.from_cf(attributes) == crs


def test_fractions_of_a_metre_are_kept_in_full() -> None:
    attributes = cf_grid_mapping({"crs_wkt": "x"}, (2.5, 0, 0.1, 0, -2.5, 1 / 3))
    assert [float(value) for value in attributes["GeoTransform"].split()] == [0.1, 2.5, 0, 1 / 3, 0, -2.5]
