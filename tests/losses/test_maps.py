"""Losses of maps, consecutive layers and the classifier: where references have no number."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.errors import UserError

RNG = np.random.default_rng(0)
MAPS = jnp.asarray(RNG.normal(size=(2, 4, 4, 3)), jnp.float32)


def finite_gradient(loss, *args):
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(loss(x, *args[1:]))))
    return np.all(np.isfinite(np.asarray(gradient(args[0]))))


def test_equal_singular_values_have_a_gradient():
    layers = [jnp.tile(jnp.eye(4)[None, :, :, None], (1, 1, 1, 3))] * 2
    loss = lambda x: jnp.sum(losses.singular_vectors([x, 2 * x], layers))  # noqa: E731
    assert np.all(np.isfinite(jax.jit(jax.grad(loss))(layers[0])))


def test_equal_embeddings_have_a_gradient():
    x = MAPS[:, 0, 0]
    for loss in (
        losses.log_sum_distance,
        losses.kernel_correlation_congruence,
        losses.correlation_congruence,
        losses.adaptive_kl,
    ):
        assert finite_gradient(loss, x, x)
    assert losses.correlation_congruence(x[:1], 2 * x[:1]) == 0  # one example has no neighbour


def test_a_margin_of_a_constant_channel_is_its_own_negative_part():
    margins = losses.negative_margin(jnp.zeros(2), jnp.array([3.0, -2.0]))
    assert margins.tolist() == [0, -2]


def test_an_answer_without_a_label_counts_as_nothing():
    z, none = MAPS[:, 0], jnp.full((2, 4), -100)
    assert losses.universal_logit_distance(z, 2 * z, none, none).tolist() == [0, 0]


@pytest.mark.parametrize("scale", [0.1, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("from_tail", [False, True])
def test_the_head_is_that_of_sorted_probabilities(scale, from_tail):
    rng = np.random.default_rng(0)
    s, t = (z * scale for z in rng.normal(size=(2, 50, 200)).astype(np.float32))
    p_t, p_s = (np.asarray(jax.nn.softmax(z), np.float64) for z in (t, s))
    shares = []
    for p, gap in zip(p_t, np.abs(p_t - p_s), strict=True):
        order = np.argsort(p if from_tail else -p)
        first = np.cumsum(p[order]) <= 0.5
        head = order[~first] if from_tail else order[first | (np.arange(200) == 0)]
        shares.append(gap[head].sum() / gap.sum())
    shares = np.array(shares)
    both = losses.forward_kl(s, t), losses.reverse_kl(s, t)
    expected = shares * both[0] + (1 - shares) * both[1]
    value = losses.adaptive_kl(s, t, from_tail=from_tail)
    np.testing.assert_allclose(value, expected, rtol=2e-4)


def test_prompts_between_answers_do_not_count():
    """Two texts in a row; the labels of the second one are predicted behind a prompt."""
    rng = np.random.default_rng(0)
    s, t = rng.normal(size=(2, 1, 8, 5))
    label = np.array([[-1, 3, 1, -1, -1, -1, 2, 4]])
    value = losses.universal_logit_distance(s, t, label, label, skip_student_eos=False)
    read = np.flatnonzero(label[0] >= 0) - 1  # a label is predicted one position before it
    p, q = (-np.sort(-jax.nn.softmax(z[0, read]), axis=-1) for z in (s, t))
    np.testing.assert_allclose(value, [np.abs(p - q).sum(axis=-1).mean()], rtol=1e-5)


def test_region_weights_compare_a_region_with_the_image():
    teacher = jnp.array([[[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]])
    student, labels = jnp.zeros((1, 3, 2)), jnp.array([0])
    values = losses.forward_kl(student, teacher, temperature=4.0)[0]
    expected = (values[0] + values[1] + 2 * values[2]) / 3
    np.testing.assert_allclose(losses.regional_kl(student, teacher, labels), [expected], rtol=1e-6)


@pytest.mark.usefixtures("without_jaxtyping")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.neuron_selectivity(MAPS, MAPS[:1]), "with equal batch sizes"),
        (
            lambda: losses.margin_relu_distance(MAPS, MAPS[..., :2], jnp.zeros(3)),
            "equal batch sizes and channels",
        ),
        (lambda: losses.margin_relu_distance(MAPS, MAPS, jnp.zeros(2)), r"margin: shape \(2,\)"),
        (lambda: losses.variational_information(MAPS, MAPS, jnp.zeros(2)), r"log_scale: shape"),
        (lambda: losses.flow_of_solution([MAPS], [MAPS]), "at least two"),
        (lambda: losses.singular_vectors([MAPS] * 2, [MAPS[:, :, :2]] * 2), "equal width"),
        (lambda: losses.class_activation(MAPS, MAPS, resolution=0), "resolution"),
        (lambda: losses.softmax_regression(MAPS, MAPS, jnp.zeros((2, 5))), "kernel: shape"),
        (lambda: losses.region_logits(MAPS, grids=(0,)), "grids"),
        (lambda: losses.skew_forward_kl(MAPS, MAPS, alpha=1.0), "alpha"),
        (
            lambda: losses.regional_kl(MAPS[:, 0], MAPS[:, 0], jnp.zeros(3, jnp.int32)),
            "labels: shape",
        ),
        (
            lambda: losses.universal_logit_distance(MAPS, MAPS, jnp.zeros(2), jnp.zeros(2)),
            "student .* and teacher .* must be",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(UserError, match=message):
        call()


_AT_REAL_SIZES = """
import jax, jax.numpy as jnp, numpy as np
from kdjax import losses
rng = np.random.default_rng(0)
shapes = [(64, 16, 16, 128), (64, 8, 8, 256)]
s, t = ([jnp.asarray(rng.normal(size=x), jnp.float32) for x in shapes] for _ in range(2))
loss = jax.jit(lambda s, t: losses.singular_vectors(s, t, channels=True))
for _ in range(4):
    jax.block_until_ready(loss(s, t))
members = [[jnp.stack([x, x]) for x in maps] for maps in (s, t)]
for _ in range(2):
    both = jax.vmap(loss)(*members)
np.testing.assert_allclose(both, np.stack([loss(s, t)] * 2), rtol=1e-3)
"""


@pytest.mark.long
def test_singular_vectors_end():
    # The process would wait for ever if jax's threads waited for each other.
    subprocess.run([sys.executable, "-c", _AT_REAL_SIZES], check=True, timeout=240)
