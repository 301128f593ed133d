"""Corruptions of images, compared with scipy where it has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from kdjax.data.augment import corruptions

IMAGES = np.random.default_rng(0).uniform(size=(3, 12, 12, 2)).astype("f4")
IDS = np.arange(3)


def corrupt(name, ids=IDS, seed=0):
    code = corruptions.CODES.get(name, 0)
    return np.asarray(jax.jit(corruptions.corrupt)(IMAGES, code, ids, jax.random.key(seed)))


def test_there_are_four_kinds_at_three_levels():
    assert len(corruptions.CODES) == 12
    assert sorted(corruptions.CODES.values()) == list(range(1, 13))


def test_code_0_is_the_image():
    assert np.array_equal(corrupt("none"), IMAGES)


@pytest.mark.parametrize(("level", "spread"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_blur_equals_scipy(level, spread):
    expected = ndimage.gaussian_filter(
        IMAGES, (0, spread, spread, 0), mode="nearest", radius=(0, 6, 6, 0)
    )
    np.testing.assert_allclose(corrupt(f"blur_{level}"), expected, atol=1e-5)


@pytest.mark.parametrize(("level", "degrees"), [(1, 10), (2, 20), (3, 30)])
def test_rotation_equals_scipy_in_one_of_both_directions(level, degrees):
    actual = corrupt(f"rotation_{level}")
    inner = slice(4, 8)  # scipy treats the border in another way
    for image, rotated in zip(IMAGES, actual, strict=True):
        both = [ndimage.rotate(image, sign * degrees, reshape=False, order=1) for sign in (-1, 1)]
        errors = [np.abs(x[inner, inner] - rotated[inner, inner]).max() for x in both]
        assert min(errors) < 1e-4 < max(errors)


@pytest.mark.parametrize(("level", "factor"), [(1, 0.6), (2, 0.4), (3, 0.2)])
def test_contrast_keeps_the_mean_and_scales_the_spread(level, factor):
    actual = corrupt(f"contrast_{level}")
    axes = (1, 2, 3)
    np.testing.assert_allclose(actual.mean(axes), IMAGES.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(actual.std(axes), factor * IMAGES.std(axes), rtol=1e-4)


@pytest.mark.parametrize(("level", "spread"), [(1, 0.05), (2, 0.1), (3, 0.2)])
def test_noise_has_its_spread_where_nothing_is_clipped(level, spread):
    grey = jnp.full((1, 64, 64, 1), 0.5)
    code = corruptions.CODES[f"noise_{level}"]
    noise = corruptions.corrupt(grey, code, np.zeros(1, int), jax.random.key(0)) - grey
    assert float(noise.std()) == pytest.approx(spread, rel=0.05)


def test_a_corruption_depends_on_the_id_and_the_key_alone():
    first, again = corrupt("noise_2"), corrupt("noise_2", ids=np.array([2, 1, 0]))
    noise, noise_again = first - IMAGES, again - IMAGES
    free = (first > 0) & (first < 1) & (again > 0) & (again < 1)
    assert np.allclose(noise[1][free[1]], noise_again[1][free[1]])
    assert not np.allclose(noise[0][free[0]], noise_again[0][free[0]])
    assert not np.array_equal(first, corrupt("noise_2", seed=1))
