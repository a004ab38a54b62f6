from __future__ import annotations

import numpy as np
import pytest

from sits_pipeline.simulate.fields import block_mean, generator, smooth_field


def test_a_generator_depends_on_seed_and_key_alone() -> None:
    first = generator(1, "clouds", 3).random(4)
    assert first.tolist() == generator(1, "clouds", 3).random(4).tolist()
    assert first.tolist() != generator(1, "clouds", 4).random(4).tolist()
    assert first.tolist() != generator(2, "clouds", 3).random(4).tolist()


@pytest.mark.parametrize("shape", [(84, 84), (60, 200), (1068, 324)])
@pytest.mark.parametrize("scale", [3, 40, 700])
def test_a_smooth_field_is_standardized_and_smooth(shape: tuple[int, int], scale: float) -> None:
    field = smooth_field(generator(0, "test"), shape, scale, octaves=1)
    assert field.shape == shape
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=1e-3)
    assert field.std() == pytest.approx(1, abs=1e-3)
    if scale > 30:
        assert np.abs(np.diff(field, axis=1)).max() < 0.35


def test_block_means_are_means_of_squares() -> None:
    field = np.arange(12, dtype=np.float32).reshape(2, 6)
    assert block_mean(field, 2).tolist() == [[3.5, 5.5, 7.5]]
