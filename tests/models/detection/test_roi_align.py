"""RoIAlign against a loop over points in float64; its gradient against a scatter's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.models.detection import roi_align as module
from kdjax.models.detection.roi_align import levels_of, roi_align

STRIDES = (4, 8)


def bilinear(image, y, x):
    """Return the value of [height, width, channel] at a point; pixel centres are integers."""
    height, width, channels = image.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(np.floor(y)), int(np.floor(x))
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return (
        image[top, left] * (1 - dy) * (1 - dx)
        + image[top, right] * (1 - dy) * dx
        + image[low, left] * dy * (1 - dx)
        + image[low, right] * dy * dx
    )


def by_hand(features, boxes, levels, bins):
    actual = np.zeros((len(boxes), bins, bins, features[0].shape[-1]))
    for n, (box, level) in enumerate(zip(boxes, levels, strict=True)):
        left, top, right, bottom = box / STRIDES[level] - 0.5
        for p in range(bins):
            for q in range(bins):
                for a in (0.25, 0.75):
                    for b in (0.25, 0.75):
                        y = top + (p + a) * (bottom - top) / bins
                        x = left + (q + b) * (right - left) / bins
                        actual[n, p, q] += bilinear(features[level], y, x) / 4
    return actual


@pytest.fixture
def scene():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(9, 12, 3)), rng.normal(size=(5, 6, 3))]
    # inside, across two edges, outside, without area, the full image
    boxes = np.array(
        [[3, 4, 20, 30], [-9, -8, 12, 9], [90, 90, 99, 99], [8, 8, 8, 8], [0, 0, 48, 36.0]]
    )
    return features, boxes, np.array([0, 0, 1, 0, 1])


def to_jax(features):
    return tuple(jnp.array(f, jnp.float32) for f in features)


def test_values_against_a_loop(scene):
    features, boxes, levels = scene
    actual = roi_align(
        to_jax(features), jnp.array(boxes), jnp.array(levels), strides=STRIDES, bins=3
    )
    np.testing.assert_allclose(actual, by_hand(features, boxes, levels, 3), atol=1e-5)


def test_a_linear_map_is_exact():
    """A map that is linear in x has the value at the bin's centre in each inner bin."""
    slope = jnp.broadcast_to(4.0 * jnp.arange(16.0) + 2, (16, 16))[..., None]  # x of the centres
    box = jnp.array([[10.0, 10.0, 38.0, 38.0]])
    actual = roi_align((slope,), box, jnp.zeros(1, int), strides=(4,), bins=7)
    np.testing.assert_allclose(actual[0, 0, :, 0], 12.0 + 4 * np.arange(7), rtol=1e-5)


def test_both_gradients_agree(scene):
    features, boxes, levels = scene
    maps = to_jax(features)
    weight = jnp.array(np.random.default_rng(1).normal(size=(5, 3, 3, 3)), jnp.float32)
    geometry = (((9, 12), (5, 6)), STRIDES, 3, jnp.dtype(jnp.float32))
    place = (jnp.array(boxes, jnp.float32), jnp.array(levels))
    pull = lambda read: jax.grad(lambda m: jnp.sum(weight * read(geometry, m, *place)))  # noqa: E731
    for a, b in zip(pull(module._read)(maps), pull(module._read_and_tile)(maps), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    read = lambda m: roi_align(m, *place, strides=STRIDES, bins=3)  # noqa: E731
    check_grads(read, (maps,), 1, modes=["rev"], rtol=1e-2)


@pytest.mark.parametrize("box", [(0, 0, 120, 80), (1, 30, 119, 33), (40, -50, 44, 200)])
def test_a_box_over_several_tiles_has_gradients_in_all(box):
    """Tiles of 8 cover 24 and 30 pixels; the last tile extends beyond the edge."""
    maps = (jnp.array(np.random.default_rng(0).normal(size=(20, 30, 2)), jnp.float32),)
    geometry = (((20, 30),), (4,), 7, jnp.dtype(jnp.float32))
    place = (jnp.array([box, (0, 0, 8, 8)], jnp.float32), jnp.zeros(2, int))
    pull = lambda read: jax.grad(lambda m: jnp.sum(read(geometry, m, *place) ** 2))(maps)[0]  # noqa: E731
    np.testing.assert_allclose(pull(module._read_and_tile), pull(module._read), atol=1e-5)


def test_non_finite_boxes_terminate(scene):
    features, _, _ = scene
    nan, inf = float("nan"), float("inf")
    boxes = jnp.array([[nan] * 4, [-inf, -inf, inf, inf], [inf, nan, 3, 4]], jnp.float32)
    read = lambda m: roi_align(m, boxes, jnp.zeros(3, int), strides=STRIDES, bins=2)  # noqa: E731
    actual = jax.grad(lambda m: jnp.sum(jnp.nan_to_num(read(m))))(to_jax(features))
    assert actual[0].shape == features[0].shape


def test_bfloat16_maps_have_bfloat16_gradients(scene):
    features, boxes, levels = scene
    maps = tuple(f.astype(jnp.bfloat16) for f in to_jax(features))
    read = lambda m: roi_align(m, jnp.array(boxes), jnp.array(levels), strides=STRIDES, bins=2)  # noqa: E731
    gradient = jax.grad(lambda m: jnp.sum(read(m)))(maps)
    assert [g.dtype for g in gradient] == [jnp.bfloat16] * 2


def test_vmap_over_images_and_members(scene):
    features, boxes, levels = scene
    stacked = tuple(jnp.stack([f, 2 * f]) for f in to_jax(features))
    places = (jnp.stack([jnp.array(boxes)] * 2), jnp.stack([jnp.array(levels)] * 2))
    one = lambda m, b, n: roi_align(m, b, n, strides=STRIDES, bins=2)  # noqa: E731
    value = jax.vmap(one)(stacked, *places)
    np.testing.assert_allclose(value[1], 2 * value[0], rtol=1e-5)
    gradient = jax.grad(lambda m: jnp.sum(jax.vmap(one)(m, *places) ** 2))(stacked)
    np.testing.assert_allclose(gradient[1][1], 2 * gradient[1][0], rtol=1e-4, atol=1e-5)


def test_levels_depend_on_the_size():
    sides = np.array([0.0, 50, 111, 113, 223, 225, 447, 449, 2000])
    boxes = jnp.array(np.stack([0 * sides, 0 * sides, sides, sides], 1))
    actual = levels_of(boxes, (4, 8, 16, 32))
    expected = [int(np.clip(np.floor(4 + np.log2(max(s, 1e-9) / 224)), 2, 5)) - 2 for s in sides]
    assert actual.tolist() == expected
