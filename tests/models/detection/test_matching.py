"""Matching, sampling and suppression against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.models.detection.matching import GroundTruth, match, sample
from kdjax.models.detection.nms import suppress
from tests.models.detection.test_boxes import draw, overlap, size


def ratio(a, b):
    common = overlap(a, b)
    return common / (size(a) + size(b) - common)


def by_hand(regions, boxes, single, crowds, low, high, keep_best):
    """Return the labels of all regions by a loop."""
    table = np.array(
        [[ratio(r, b) if ok else 0.0 for b, ok in zip(boxes, single, strict=True)] for r in regions]
    )
    labels = []
    for row, region in zip(table, regions, strict=True):
        best = row.max()
        label = 1 if best >= high else 0 if best < low else -1
        if keep_best and any(v == c and v > 0 for v, c in zip(row, table.max(0), strict=True)):
            label = 1
        inside = max([overlap(region, c) / size(region) for c in crowds], default=0.0)
        labels.append(-1 if label == 0 and inside >= 0.5 else label)
    return table.argmax(1), labels


def ground_truth(boxes, real, crowd):
    return GroundTruth(boxes, jnp.zeros(len(boxes), int), real, crowd, jnp.full(2, 100.0))


@pytest.mark.parametrize("keep_best", [False, True])
def test_match_against_loops(keep_best):
    regions, boxes = draw(0, 40), draw(1, 5)
    real = np.array([True, True, True, False, True])
    crowd = np.array([False, False, True, False, False])
    truth = ground_truth(jnp.array(boxes), real, crowd)
    index, label = match(jnp.array(regions), truth, low=0.3, high=0.5, keep_best=keep_best)
    crowds = [boxes[2]]
    at, expected = by_hand(regions, boxes, real & ~crowd, crowds, 0.3, 0.5, keep_best)
    assert label.tolist() == expected
    assert set(expected) == {-1, 0, 1}  # all three labels occur
    chosen = np.array(expected) == 1
    assert np.asarray(index)[chosen].tolist() == at[chosen].tolist()


def test_an_image_without_boxes_is_background():
    flags = jnp.zeros(3, bool)
    truth = ground_truth(jnp.zeros((3, 4)), flags, flags)
    _, label = match(jnp.array(draw(2, 6)), truth, low=0.3, high=0.7, keep_best=True)
    assert label.tolist() == [0] * 6


def test_sample_takes_the_share_and_fills_with_background():
    label = jnp.array([1] * 6 + [0] * 20 + [-1] * 4)
    for seed in range(3):
        index, real = sample(label, jax.random.key(seed), size=8, share=0.5)
        assert real.all()
        assert len(set(index.tolist())) == 8
        assert label[index].tolist() == [1] * 4 + [0] * 4
    few = jnp.array([1] + [0] * 20)
    index, real = sample(few, jax.random.key(0), size=8, share=0.5)
    assert few[index].tolist() == [1] + [0] * 7
    assert real.all()


def test_sample_masks_missing_rows():
    label = jnp.array([1, 1, 0, -1, -1, -1, 0, 1])
    allowed = jnp.array([True] * 6 + [False] * 2)
    index, real = sample(label, jax.random.key(0), size=6, share=0.25, real=allowed)
    assert real.tolist() == [True, True, False, False, False, False]
    assert label[index[:2]].tolist() == [1, 0]


def test_sampling_more_than_available_is_an_error():
    with pytest.raises(UserError, match="9 regions are to be sampled from 5"):
        sample(jnp.zeros(5, int), jax.random.key(0), size=9, share=0.5)


def test_sample_is_uniform():
    """Each of 5 backgrounds is sampled in 2 of 5 cases: 400 draws, 4 standard errors of .024."""
    label = jnp.array([0] * 5)
    draw_one = jax.vmap(lambda key: sample(label, key, size=2, share=0.5)[0])
    draws = np.asarray(draw_one(jax.random.split(jax.random.key(0), 400)))
    share = np.array([(draws == row).any(1).mean() for row in range(5)])
    np.testing.assert_allclose(share, 0.4, atol=0.1)


def greedy(boxes, scores, groups, limit, threshold):
    left, chosen = list(np.argsort(-scores, kind="stable")), []
    while left and len(chosen) < limit:
        best = left.pop(0)
        if scores[best] == -np.inf:
            break
        chosen.append(int(best))
        left = [
            i for i in left
            if groups[i] != groups[best] or not ratio(boxes[best], boxes[i]) > threshold
        ]  # fmt: skip
    return chosen


@pytest.mark.parametrize("limit", [4, 40])
def test_suppression_against_a_list(limit):
    rng = np.random.default_rng(3)
    boxes, groups = draw(4, 60, 30.0), rng.integers(0, 3, 60)
    scores = rng.permutation(60) / 60.0
    scores[rng.choice(60, 10, replace=False)] = -np.inf
    expected = greedy(boxes, scores, groups, limit, 0.4)
    index, real = suppress(
        jnp.array(boxes), jnp.array(scores), jnp.array(groups), size=limit, threshold=0.4
    )
    assert np.asarray(index)[np.asarray(real)].tolist() == expected
    assert int(real.sum()) == len(expected)


def test_suppression_of_no_boxes_ties_and_boxes_without_area():
    flat = jnp.zeros((3, 4))
    index, real = suppress(flat, jnp.full(3, -jnp.inf), jnp.zeros(3, int), size=2, threshold=0.5)
    assert not real.any()
    index, real = suppress(flat, jnp.ones(3), jnp.zeros(3, int), size=3, threshold=0.5)
    assert index.tolist() == [0, 1, 2]  # boxes without area overlap nothing
    assert real.all()


def test_suppression_under_vmap_over_images():
    boxes, rng = np.stack([draw(s, 20, 20.0) for s in (5, 6)]), np.random.default_rng(0)
    scores, groups = rng.uniform(size=(2, 20)), np.zeros((2, 20), int)
    one = lambda *x: suppress(*x, size=6, threshold=0.3)  # noqa: E731
    index, real = jax.jit(jax.vmap(one))(jnp.array(boxes), jnp.array(scores), jnp.array(groups))
    for row in range(2):
        expected = greedy(boxes[row], scores[row], groups[row], 6, 0.3)
        assert np.asarray(index[row])[np.asarray(real[row])].tolist() == expected
