"""Boxes against loops in float64, and round trips."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax.errors import UserError
from kdjax.models.detection import boxes


def draw(seed, count, extent=50.0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, extent, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, extent, (count, 2))], 1)


def overlap(a, b):
    """Return the intersection area of one pair, in plain floats."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    tall = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return wide * tall


def size(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def test_iou_and_cover_against_loops():
    a, b = draw(0, 7), draw(1, 5)
    common = np.array([[overlap(x, y) for y in b] for x in a])
    union = np.array([[size(x) + size(y) - overlap(x, y) for y in b] for x in a])
    share = common / np.array([size(x) for x in a])[:, None]
    np.testing.assert_allclose(boxes.iou(jnp.array(a), jnp.array(b)), common / union, rtol=1e-5)
    np.testing.assert_allclose(boxes.cover(jnp.array(a), jnp.array(b)), share, rtol=1e-5)


def test_boxes_without_area_overlap_nothing():
    empty = jnp.array([[3.0, 3.0, 3.0, 3.0], [5.0, 2.0, 4.0, 9.0]])
    full = jnp.array([[0.0, 0.0, 10.0, 10.0]])
    assert boxes.areas(empty).tolist() == [0, 0]
    for overlaps in (boxes.iou(empty, full), boxes.iou(empty, empty), boxes.cover(empty, full)):
        assert np.asarray(overlaps).tolist() == np.zeros(overlaps.shape).tolist()
    gradient = jax.grad(lambda x: jnp.sum(boxes.iou(x, full) + boxes.cover(x, full)))(empty)
    assert np.isfinite(gradient).all()


def test_coding_against_its_formula_and_back():
    box, reference = draw(2, 9), draw(3, 9)
    weights = (10.0, 10.0, 5.0, 5.0)
    rows = []
    for b, r in zip(box, reference, strict=True):
        w, h, wr, hr = b[2] - b[0], b[3] - b[1], r[2] - r[0], r[3] - r[1]
        rows.append(
            [
                10 * ((b[0] + b[2]) / 2 - (r[0] + r[2]) / 2) / wr,
                10 * ((b[1] + b[3]) / 2 - (r[1] + r[3]) / 2) / hr,
                5 * math.log(w / wr),
                5 * math.log(h / hr),
            ]
        )
    b, r = jnp.array(box, jnp.float32), jnp.array(reference, jnp.float32)
    deltas = boxes.encode(b, r, weights)
    np.testing.assert_allclose(deltas, np.array(rows), rtol=1e-4, atol=1e-4)
    # float32 of coordinates up to 100
    np.testing.assert_allclose(boxes.decode(deltas, r, weights), box, rtol=1e-5, atol=1e-4)
    check_grads(lambda d: boxes.decode(d, r, weights), (deltas,), 1, rtol=1e-2)


def test_coding_is_finite_without_area_and_growth_is_clipped():
    flat = jnp.array([[5.0, 5.0, 5.0, 5.0]])
    assert np.isfinite(boxes.encode(flat, flat)).all()
    assert np.isfinite(boxes.encode(jnp.array([[0.0, 0.0, 9.0, 9.0]]), flat)).all()
    grown = boxes.decode(jnp.full((1, 4), 1e4), jnp.array([[0.0, 0.0, 16.0, 16.0]]))
    np.testing.assert_allclose(grown[0, 2] - grown[0, 0], 1000.0, rtol=1e-3)


def test_clip():
    box = jnp.array([[[-3.0, 2.0, 30.0, 50.0]]])
    assert boxes.clip(box, jnp.array([[40.0, 20.0]])).tolist() == [[[0, 2, 20, 40]]]


def test_anchors_by_hand():
    anchors = boxes.anchors(2, 3, stride=8, size=32.0, ratios=(0.25, 1.0))
    assert anchors.shape == (12, 4)
    expected = []
    for row in range(2):
        for column in range(3):
            for ratio in (0.25, 1.0):
                tall = 32 * math.sqrt(ratio)
                wide = 32 * 32 / tall
                x, y = 8 * column, 8 * row
                expected.append([x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2])
    np.testing.assert_allclose(anchors, expected)
    with pytest.raises(UserError, match="must be positive"):
        boxes.anchors(2, 2, stride=4, size=0.0)
