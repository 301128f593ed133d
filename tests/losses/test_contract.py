"""Contract of every public loss: one row for each name, without exceptions.

To add a loss, add a row. `inputs(rng, scale)` builds the positional arguments for one batch as
float arrays of magnitude `scale`; `smooth` are the positions that may receive gradients. Feature
losses take [batch, width] if they can, with as many columns as classes.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses

BATCH, CLASSES = 4, 3
HARSH = [{"temperature": x} for x in (0.05, 1.0, 20.0)]  # temperatures with finite values


def logits(rng, scale):
    return jnp.array(scale * rng.normal(size=(BATCH, CLASSES)), jnp.float32).clip(-1e4, 1e4)


def labels(rng):
    return jnp.array(rng.integers(0, CLASSES, BATCH), jnp.int32)


def one(rng, scale):
    return (logits(rng, scale),)


def pair(rng, scale):
    return logits(rng, scale), logits(rng, scale)


def labelled(rng, scale):
    return logits(rng, scale), labels(rng)


def labelled_pair(rng, scale):
    return *pair(rng, scale), labels(rng)


def peers(rng, scale):
    return logits(rng, scale), jnp.stack(pair(rng, scale)), labels(rng)


def maps(rng, scale):
    shape = (BATCH, 6, 6, CLASSES)
    return tuple(
        jnp.array(scale * rng.normal(size=shape), jnp.float32).clip(-1e4, 1e4) for _ in range(2)
    )


def with_means(rng, scale):
    return *pair(rng, scale), logits(rng, scale)[:CLASSES], labels(rng)


def with_means_alone(rng, scale):
    return logits(rng, scale), logits(rng, scale)[:CLASSES], labels(rng)


def remembered(rng, scale):
    return *pair(rng, scale), jnp.array(rng.permutation(6)[:BATCH], jnp.int32)


def contrast(student, teacher, ids):
    memory = losses.contrast_init(jax.random.key(0), jnp.arange(6) % 2, width=CLASSES)
    return losses.contrast_loss(
        student, teacher, ids, memory, jax.random.key(1), num_negatives=5
    )[0]  # fmt: skip


def square(rng, scale):
    return (jnp.asarray(scale * rng.normal(size=(CLASSES, CLASSES)), jnp.float32),)


def penalty(x, y):
    """Return the inputs of a penalty: a critic whose slope is neither constant nor 0."""
    mix, permutation = jnp.linspace(0.1, 0.9, len(x))[:, None], jnp.roll(jnp.arange(len(x)), 1)
    critic = lambda a, b: jnp.sum(a * b + 2 * a, axis=1)  # noqa: E731
    return losses.gradient_penalty(critic, x, y, sides=2, mix=mix, permutation=permutation)


def with_scale(rng, scale):
    return *maps(rng, scale), logits(rng, scale)[0]


def with_kernel(rng, scale):
    return *pair(rng, scale), logits(rng, scale)[:CLASSES]


def two_views(rng, scale):
    return *pair(rng, scale), *pair(rng, scale)


def layered(name, **options):
    """Of two consecutive layers, the second half as large."""
    layers = lambda x: (x, x[:, ::2, ::2])  # noqa: E731
    return lambda s, t: getattr(losses, name)(layers(s), layers(t), **options)


def of_regions(name):
    regions = lambda z: jnp.stack([z, z[:, ::-1]], axis=1)  # noqa: E731
    return lambda s, t, y, **k: getattr(losses, name)(regions(s), regions(t), y, **k)


def of_answers(name):
    """Of answers of one token, the second of two."""
    tokens = lambda z: jnp.stack([z, 2 * z], axis=1)  # noqa: E731
    answer = jnp.array([[-1, 0]] * BATCH)
    call = functools.partial(getattr(losses, name), skip_student_eos=False)
    return lambda s, t: call(tokens(s), tokens(t), answer, answer)


class Row(NamedTuple):
    inputs: Callable[..., tuple]
    smooth: tuple[int, ...] = (0, 1)
    axes: tuple[int | None, ...] = (0, 0)  # batch axes of each argument
    couples: bool = False  # couples the batch: the output is [] instead of [batch]
    harsh: tuple[dict[str, Any], ...] = tuple(HARSH)  # keywords that must give finite values
    one_axis: bool = False  # the first axis is the only batch axis
    call: Callable[..., Any] | None = None  # set if the plain call does not return the loss


ROWS = {
    "attention_transfer": Row(maps, harsh=({},), one_axis=True),
    "balanced_kl": Row(pair),
    "binary_cross_entropy": Row(
        labelled, smooth=(0,), harsh=({},),
        call=lambda z, y: losses.binary_cross_entropy(z[..., 0], y),
    ),
    "class_mean_cosine": Row(
        with_means_alone, smooth=(0,), axes=(0, None, 0), harsh=({},)
    ),
    "contrast_loss": Row(remembered, harsh=({},), one_axis=True, call=contrast),
    "correlation": Row(pair, couples=True),
    "cross_entropy": Row(labelled, smooth=(0,), harsh=({}, {"label_smoothing": 0.1})),
    "decoupled_kl": Row(labelled_pair, axes=(0, 0, 0)),
    "dual_dependency": Row(square, smooth=(0,), axes=(0,), couples=True, harsh=({},)),
    "entropy": Row(one, smooth=(0,), axes=(0,)),
    "feature_mse": Row(pair, harsh=({},), one_axis=True),
    "forward_kl": Row(pair),
    "gradient_penalty": Row(pair, couples=True, harsh=({},), call=penalty),
    "hard_cross_entropy": Row(pair, smooth=(0,), harsh=({}, {"label_smoothing": 0.1})),
    "hierarchical_context": Row(maps, harsh=({},), one_axis=True),
    "jensen_shannon": Row(
        pair, harsh=tuple({**t, "weight": w} for t in HARSH for w in (1e-3, 0.5, 0.999))
    ),
    "least_cross_entropy_kl": Row(peers, smooth=(0,), axes=(0, 1, 0)),
    "logit_mse": Row(pair),
    "minimum_logit_kl": Row(peers, smooth=(0,), axes=(0, 1, 0)),
    "norm_direction": Row(with_means, axes=(0, 0, None, 0), harsh=({},)),
    "predictive_coding": Row(square, smooth=(0,), axes=(0,), couples=True, harsh=({},)),
    "probabilistic_knowledge_transfer": Row(pair, couples=True, harsh=({},)),
    "relational_angle": Row(pair, couples=True, harsh=({},)),
    "relational_distance": Row(pair, couples=True, harsh=({},)),
    "reverse_kl": Row(pair),
    "similarity_preserving": Row(maps, couples=True, harsh=({},)),
    "sinkhorn": Row(
        pair, couples=True, call=lambda *a, **k: jnp.sum(losses.sinkhorn(*a, **k).cost)
    ),
    "sinkhorn_divergence": Row(pair, couples=True),
    "smooth_l1": Row(pair, harsh=({}, {"beta": 1.0}, {"beta": 1e-3})),
    "soft_cross_entropy": Row(pair),
    "stepwise_norm": Row(one, smooth=(0,), axes=(0,), harsh=({}, {"step": 1e-3})),
    "switch_signal": Row(
        labelled_pair, smooth=(), couples=True, harsh=({},),
        call=lambda *a, **k: losses.switch_signal(*a, **k).threshold,
    ),
    "total_variation": Row(pair),
    "weighted_kl": Row(pair),
    "activation_boundary": Row(maps, harsh=({},), one_axis=True),
    "adaptive_kl": Row(pair, harsh=(*HARSH, *({**t, "from_tail": True} for t in HARSH))),
    "class_activation": Row(
        maps, harsh=({}, {"normalize": True}, {"binarize": True}), one_axis=True
    ),
    "correlation_congruence": Row(pair, couples=True, harsh=({},)),
    "factor_transfer": Row(pair, harsh=({},), one_axis=True),
    "flow_of_solution": Row(
        maps, harsh=({},), one_axis=True, call=layered("flow_of_solution")
    ),
    "kernel_correlation_congruence": Row(pair, couples=True, harsh=({},)),
    "log_sum_distance": Row(pair, couples=True, harsh=({},)),
    "margin_relu_distance": Row(
        with_scale, smooth=(0, 1, 2), axes=(0, 0, None), harsh=({},), one_axis=True
    ),
    "multi_level_kl": Row(two_views, smooth=(0, 1, 2, 3), axes=(0, 0, 0, 0), couples=True),
    "multi_level_transport": Row(
        pair, couples=True, harsh=({},), call=of_answers("multi_level_transport")
    ),
    "negative_margin": Row(
        pair, harsh=({},), call=lambda *a: jnp.sum(losses.negative_margin(*a), axis=-1)
    ),
    "neuron_selectivity": Row(maps, harsh=({},), one_axis=True),
    "regional_decoupled_kl": Row(
        labelled_pair, one_axis=True, call=of_regions("regional_decoupled_kl")
    ),
    "regional_kl": Row(labelled_pair, one_axis=True, call=of_regions("regional_kl")),
    "singular_vectors": Row(
        maps, smooth=(0,), harsh=({},), one_axis=True,
        call=layered("singular_vectors", channels=True),
    ),
    "skew_forward_kl": Row(pair, harsh=(*HARSH, {"alpha": 1e-3}, {"alpha": 0.999})),
    "skew_reverse_kl": Row(pair, harsh=(*HARSH, {"alpha": 1e-3}, {"alpha": 0.999})),
    "softmax_regression": Row(
        with_kernel, smooth=(0, 1, 2), harsh=({},), one_axis=True
    ),
    "spatial_factor_transfer": Row(maps, harsh=({},), one_axis=True),
    "standardized_kl": Row(pair),
    "universal_logit_distance": Row(
        pair, harsh=({},), one_axis=True, call=of_answers("universal_logit_distance")
    ),
    "variational_information": Row(
        with_scale, smooth=(0, 1, 2), axes=(0, 0, None), harsh=({},), one_axis=True
    ),
}  # fmt: skip
NOT_LOSSES = {"contrast_init", "match_maps", "region_logits"}
NAMES = sorted(
    n for n in set(losses.__all__) - NOT_LOSSES if not inspect.isclass(getattr(losses, n))
)


def function_of(name):
    return ROWS[name].call or getattr(losses, name)


def inputs_of(name, seed=0, scale=2.0):
    return ROWS[name].inputs(np.random.default_rng(seed), scale)


@functools.cache
def _compiled(name, static):
    """Return a jitted function (args, scalars) -> (output, gradients of its sum).

    It is traced once for each type and shape of the arguments, since the scalars are traced too.
    """
    row = ROWS[name]

    def total(args, scalars):
        out = function_of(name)(*args, **dict(static), **scalars)
        return jnp.sum(out), out

    def run(args, scalars):
        if not row.smooth:
            return total(args, scalars)[1], ()
        smooth = [args[i] for i in row.smooth]

        def of_smooth(smooth):
            values = dict(zip(row.smooth, smooth, strict=True))
            return total([values.get(i, a) for i, a in enumerate(args)], scalars)

        (_, out), grads = jax.value_and_grad(of_smooth, has_aux=True)(smooth)
        return out, grads

    return jax.jit(run)


def defaults(name):
    """Return the defaults of the scalars that the row sets to extreme values."""
    names = {key for keywords in ROWS[name].harsh for key in keywords}
    parameters = inspect.signature(getattr(losses, name)).parameters
    return {key: parameters[key].default for key in sorted(names)}


def value_and_gradients(name, args, keywords=None):
    keywords = {**defaults(name), **(keywords or {})}
    static = tuple((k, v) for k, v in keywords.items() if isinstance(v, bool))
    scalars = {k: jnp.float32(v) for k, v in keywords.items() if not isinstance(v, bool)}
    return _compiled(name, static)(list(args), scalars)


def test_public_names_and_rows_are_the_same():
    assert sorted(ROWS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_output_is_float32_of_the_batch_shape_and_equal_under_jit(name):
    args = inputs_of(name)
    eager = function_of(name)(*args)
    assert eager.dtype == jnp.float32
    assert eager.shape == (() if ROWS[name].couples else (BATCH,))
    np.testing.assert_allclose(value_and_gradients(name, args)[0], eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_a_loop(name):
    batches = [inputs_of(name, seed) for seed in range(3)]
    stacked = [jnp.stack(column) for column in zip(*batches, strict=True)]
    looped = [value_and_gradients(name, args)[0] for args in batches]
    np.testing.assert_allclose(
        jax.jit(jax.vmap(function_of(name)))(*stacked), jnp.stack(looped), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", [n for n in NAMES if not (ROWS[n].couples or ROWS[n].one_axis)])
def test_examples_do_not_mix_and_batch_axes_may_be_many_or_none(name):
    args, axes = inputs_of(name), ROWS[name].axes
    call = jax.jit(function_of(name))  # instead of a compilation of each operation
    together, _ = value_and_gradients(name, args)
    alone = [
        call(*(a if x is None else jnp.take(a, i, x) for a, x in zip(args, axes, strict=True)))
        for i in range(BATCH)
    ]
    np.testing.assert_allclose(jnp.stack(alone), together, rtol=1e-5, atol=1e-6)
    folded = (
        a if x is None else a.reshape(*a.shape[:x], 2, BATCH // 2, *a.shape[x + 1 :])
        for a, x in zip(args, axes, strict=True)
    )
    out = call(*folded)
    assert out.shape == (2, BATCH // 2)
    np.testing.assert_allclose(out.reshape(-1), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_finite_at_the_extremes(name):
    ordinary, huge = inputs_of(name), inputs_of(name, scale=1e5)  # clipped to +-1e4
    one_hot = [jnp.eye(CLASSES)[jnp.argmax(a, -1)] * 1e4 if i in (ROWS[name].smooth or (0,)) else a
               for i, a in enumerate(ordinary)]  # fmt: skip
    cases = [huge, tuple(one_hot), tuple(jnp.zeros_like(a) for a in ordinary)]
    for keywords in ROWS[name].harsh:
        for args in cases + [tuple(_as_bfloat16(a) for a in args) for args in cases[:2]]:
            out, grads = value_and_gradients(name, args, keywords)
            assert np.all(np.isfinite(np.asarray(out))), keywords
            assert all(np.all(np.isfinite(np.asarray(g, np.float32))) for g in grads), keywords


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_equals_float32_of_the_rounded_logits(name):
    rounded = [_as_bfloat16(a) for a in inputs_of(name)]
    out, grads = value_and_gradients(name, rounded)
    assert out.dtype == jnp.float32
    assert all(g.dtype == jnp.bfloat16 for g in grads)
    widened = [a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for a in rounded]
    np.testing.assert_allclose(out, value_and_gradients(name, widened)[0], rtol=1e-6)


def _as_bfloat16(a):
    return a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a
