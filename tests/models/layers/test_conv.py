"""The convolution against lax's: values, gradients of first and second order, vmap, pmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kdjax.models.layers.conv import conv2d

# batch, size, in, out, kernel, stride, groups: every branch of the selection of lax or matrix
# products (1x1, one input channel, strided, many taps) and odd sizes.
CASES = {
    "plain": (2, (6, 6), 3, 4, 3, 1, 1),
    "strided": (2, (7, 6), 3, 4, 3, 2, 1),
    "wide": (2, (7, 6), 2, 3, 5, 1, 1),
    "stem": (1, (9, 8), 2, 3, 7, 2, 1),
    "even": (2, (5, 6), 2, 3, 2, 1, 1),
    "one_channel": (2, (6, 5), 1, 4, 3, 2, 1),
    "pointwise": (2, (5, 5), 3, 4, 1, 1, 1),
    "pointwise_strided": (2, (6, 7), 3, 4, 1, 2, 1),
    "grouped": (2, (6, 6), 4, 6, 3, 2, 2),
    "grouped_pointwise": (2, (5, 4), 6, 9, 1, 2, 3),
    "depthwise": (2, (6, 7), 4, 4, 3, 2, 4),
    "depthwise_doubled": (2, (5, 6), 3, 6, 3, 1, 3),
}
# float32 sums of up to 72 products in another order
TOLERANCE = 1e-5


def _arrays(case, members=(), seed=0):
    batch, (height, width), channels, features, window, stride, groups = CASES[case]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*members, batch, height, width, channels))
    kernel = rng.normal(size=(*members, window, window, channels // groups, features))
    pad = (window // 2, window // 2)
    options = {"strides": (stride, stride), "padding": (pad, pad), "groups": groups}
    return jnp.float32(x), jnp.float32(kernel), options


def _kdjax(options):
    return lambda x, kernel: conv2d(x, kernel, **options)


def _lax(options):
    return lambda x, kernel: lax.conv_general_dilated(
        x,
        kernel,
        options["strides"],
        options["padding"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=options["groups"],
    )


def _close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=TOLERANCE * float(jnp.abs(b).max()), rtol=0)


def _gradients(conv):
    # sin makes the cotangent depend on the position and on both arguments
    return jax.grad(lambda x, kernel: jnp.sin(conv(x, kernel)).sum(), argnums=(0, 1))


def _penalty_gradients(conv):
    """Differentiate the squared gradients: needs second derivatives in both arguments."""

    def penalty(x, kernel):
        return sum((g**2).sum() for g in _gradients(conv)(x, kernel))

    return jax.grad(penalty, argnums=(0, 1))


def test_padding_may_differ_between_sides():
    rng = np.random.default_rng(2)
    x, kernel = (jnp.float32(rng.normal(size=s)) for s in ((2, 5, 6, 3), (3, 2, 3, 4)))
    options = {"strides": (1, 1), "padding": ((0, 2), (1, 0)), "groups": 1}
    actual, expected = (jax.jit(_gradients(f(options)))(x, kernel) for f in (_kdjax, _lax))
    _close(actual, expected)


@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_lax(case):
    x, kernel, options = _arrays(case)

    def both(conv):
        return jax.jit(lambda x, k: (conv(x, k), _gradients(conv)(x, k)))(x, kernel)

    _close(both(_kdjax(options)), both(_lax(options)))


@pytest.mark.parametrize("case", ["plain", "strided", "one_channel", "pointwise", "depthwise"])
def test_second_derivatives_equal_lax(case):
    x, kernel, options = _arrays(case)
    actual = jax.jit(_penalty_gradients(_kdjax(options)))(x, kernel)
    _close(actual, jax.jit(_penalty_gradients(_lax(options)))(x, kernel))


@pytest.mark.parametrize("case", ["plain", "strided", "pointwise", "depthwise"])
@pytest.mark.parametrize("axes", [(0, 0), (None, 0), (0, None)])
def test_vmap_of_gradients_equals_a_loop(case, axes):
    members = 2
    x, kernel, options = _arrays(case, (members,))
    args = [a if axis == 0 else a[0] for a, axis in zip((x, kernel), axes, strict=True)]

    def both(x, kernel):
        return _kdjax(options)(x, kernel), _gradients(_kdjax(options))(x, kernel)

    actual = jax.jit(jax.vmap(both, in_axes=axes))(*args)
    one = jax.jit(both)
    for i in range(members):
        pair = [a[i] if axis == 0 else a for a, axis in zip(args, axes, strict=True)]
        _close(jax.tree.map(lambda leaf, i=i: leaf[i], actual), one(*pair))


@pytest.mark.parametrize("case", ["plain", "strided"])
def test_nested_vmap_and_gradient_of_vmap(case):
    x, kernel, options = _arrays(case, (2, 3))

    def total(conv):
        inner = jax.vmap(conv, in_axes=(0, 0))
        outer = jax.vmap(inner, in_axes=(0, 0))
        return jax.grad(lambda x, k: jnp.sin(outer(x, k)).sum(), argnums=(0, 1))

    _close(jax.jit(total(_kdjax(options)))(x, kernel), jax.jit(total(_lax(options)))(x, kernel))


def test_vmapped_second_derivatives():
    x, kernel, options = _arrays("strided", (2,))
    actual = jax.jit(jax.vmap(_penalty_gradients(_kdjax(options))))(x, kernel)
    _close(actual, jax.jit(jax.vmap(_penalty_gradients(_lax(options))))(x, kernel))


def test_vmap_without_batched_arguments_has_one_convolution():
    x, kernel, options = _arrays("plain")

    def member(scale):
        return _kdjax(options)(x, kernel) * scale

    text = str(jax.make_jaxpr(jax.vmap(member))(jnp.ones(5)))
    assert text.count("conv_general_dilated[") == 1


def test_pmap_of_vmap():
    x, kernel, options = _arrays("strided", (1, 2))
    actual = jax.pmap(jax.vmap(_gradients(_kdjax(options))))(x, kernel)
    _close(actual, jax.vmap(jax.vmap(_gradients(_lax(options))))(x, kernel))


@pytest.mark.parametrize("case", ["plain", "strided", "pointwise", "depthwise"])
def test_bfloat16_stays_bfloat16_and_is_accurate(case):
    x, kernel, options = _arrays(case)
    low = [a.astype(jnp.bfloat16) for a in (x, kernel)]
    exact = [a.astype(jnp.float32) for a in low]
    actual = jax.jit(lambda *a: (_kdjax(options)(*a), _gradients(_kdjax(options))(*a)))(*low)
    expected = _lax(options)(*exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(actual)} == {jnp.dtype(jnp.bfloat16)}
    # one rounding of the result to 8 bits: 2^-8
    np.testing.assert_allclose(np.float32(actual[0]), expected, atol=2**-8 * abs(expected).max())
