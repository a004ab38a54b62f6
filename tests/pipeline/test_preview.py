from __future__ import annotations

import io
from datetime import timedelta
from typing import Literal

import numpy as np
import pytest
from matplotlib.image import imread
from numpy.typing import NDArray
from tests.synthetic import Synthetic

from sits_pipeline.preview import date_index_of, render_preview
from sits_pipeline.store import read_layout, read_overview, read_window
from sits_pipeline.values import Window


def pixels_of(png: bytes) -> NDArray[np.uint8]:
    return np.rint(imread(io.BytesIO(png), format="png") * 255).astype(np.uint8)


@pytest.mark.parametrize("layer", ["rgb", "ndvi", "labels"])
@pytest.mark.parametrize(("max_px", "shape"), [(40, (34, 36)), (200, (180, 192)), (5000, (540, 576))])
def test_no_side_passes_the_wanted_size(
    synthetic: Synthetic, layer: Literal["rgb", "ndvi", "labels"], max_px: int, shape: tuple[int, int]
) -> None:
    png, _ = render_preview(synthetic.folder, layer, day=None, max_px=max_px)
    found = pixels_of(png).shape
    assert max(found[:2]) <= max_px
    if layer != "labels" or max_px > 72:
        assert found == (*shape, 4)


def test_labels_have_the_colours_of_their_classes(synthetic: Synthetic) -> None:
    found = pixels_of(render_preview(synthetic.folder, "labels", day=None, max_px=5000)[0])
    assert np.unique(found[synthetic.crop_type == 1], axis=0).tolist() == [[0xE0, 0xB0, 0x40, 255]]
    assert not found[synthetic.crop_type == 65535][:, 3].any()


def test_thinned_labels_are_every_third_pixel(synthetic: Synthetic) -> None:
    whole = pixels_of(render_preview(synthetic.folder, "labels", day=None, max_px=5000)[0])
    thin = pixels_of(render_preview(synthetic.folder, "labels", day=None, max_px=200)[0])
    np.testing.assert_array_equal(thin, whole[::3, ::3])


def test_what_is_not_observed_is_transparent(synthetic: Synthetic) -> None:
    first = synthetic.plan.acquisitions[0].day
    found = pixels_of(render_preview(synthetic.folder, "rgb", day=first, max_px=5000)[0])
    np.testing.assert_array_equal(found[..., 3] == 255, synthetic.quality[0] & 1 == 1)


def test_ndvi_is_transparent_where_it_is_cloudy_and_green_where_it_is_high(synthetic: Synthetic) -> None:
    png, text = render_preview(synthetic.folder, "ndvi", day=synthetic.plan.acquisitions[2].day, max_px=5000)
    found = pixels_of(png)
    assert not found[synthetic.quality[2] == 3][:, 3].any()
    red, green = (found[(synthetic.crop_type == 2) & (synthetic.quality[2] == 1)].mean(axis=0)[:2]).tolist()
    assert green > red
    assert "simulated" in text


def test_the_clearest_date_is_shown_by_default(synthetic: Synthetic) -> None:
    clear = [int(np.count_nonzero((quality & 131) == 1)) for quality in synthetic.quality]
    _, text = render_preview(synthetic.folder, "rgb", day=None, max_px=40)
    assert str(synthetic.plan.acquisitions[int(np.argmax(clear))].day) in text


def test_a_day_without_a_pass_names_the_nearest(synthetic: Synthetic) -> None:
    layout = read_layout(synthetic.folder)
    assert date_index_of(layout, layout.days[2]) == 2
    with pytest.raises(ValueError, match=f"no date 2021-10-21; the nearest are {layout.days[0]}"):
        date_index_of(layout, layout.days[0] + timedelta(days=1))


# What previews, exports and the report read


def test_the_layout_comes_back_as_it_was_written(synthetic: Synthetic) -> None:
    layout = read_layout(synthetic.folder)
    assert layout.geobox == synthetic.plan.zone.geobox
    assert layout.days == tuple(a.day for a in synthetic.plan.acquisitions)
    assert layout.sensing_times == tuple(a.sensing_time for a in synthetic.plan.acquisitions)
    assert (layout.bands, layout.finer, layout.has_labels) == (synthetic.plan.bands, (2,), True)
    assert [row["name"] for row in layout.classes] == [crop.name for crop in synthetic.taxonomy.classes]


def test_a_window_of_some_dates_is_read_in_their_order(synthetic: Synthetic) -> None:
    window = Window(row=500, column=490, height=30, width=40)
    found = read_window(synthetic.folder, "reflectance", window, dates=[3, 1])
    np.testing.assert_array_equal(found, synthetic.reflectance[[3, 1], :, 500:530, 490:530])
    with pytest.raises(ValueError, match="the cube has no array nothing"):
        read_window(synthetic.folder, "nothing", window, dates=None)


def test_a_thinned_overview_is_every_nth_pixel_of_the_whole(synthetic: Synthetic) -> None:
    whole, bits = read_overview(synthetic.folder, 1, bands=[0, 3], max_px=1000)
    assert whole.shape == (2, 68, 72)
    for max_px, step in ((72, 1), (71, 2), (25, 3), (10, 8)):
        image, quality = read_overview(synthetic.folder, 1, bands=[0, 3], max_px=max_px)
        np.testing.assert_array_equal(image, whole[:, ::step, ::step])
        np.testing.assert_array_equal(quality, bits[::step, ::step])
