"""Losses of the results tables against other people's implementations, run in float64.

Keys of the golden file: `<loss>/<case>/in/<name>`, `/value`, `/grad/<name>`, `/part/<name>`. Maps
are channels first there.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.losses._maps import pool

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "table_losses.npz")
CASES = sorted({tuple(key.split("/")[:2]) for key in GOLDEN.files})
# about 0: columns of a batch norm do not depend on a bias, two standardized logits are constants
ABSOLUTE = {("srd", "bias"), ("logit_std", "s")}


def entries(case, kind):
    prefix = f"{'/'.join(case)}/{kind}/"
    return {k.removeprefix(prefix): GOLDEN[k] for k in GOLDEN.files if k.startswith(prefix)}


def channels_last(x):
    return np.moveaxis(x, 1, -1) if x.ndim == 4 else x


def layers(a, name):
    return [a[f"{name}{i}"] for i in range(len(a)) if f"{name}{i}" in a]


def scalars(a, *names):
    return {n: float(a[n]) for n in names}


def mean(name, *keywords):
    """The mean of a loss of s and t over the batch."""
    return lambda a: jnp.mean(getattr(losses, name)(a["s"], a["t"], **scalars(a, *keywords)))


def squared(name, *keywords):
    """As `mean`, times T^2."""
    return lambda a: float(a["temperature"]) ** 2 * mean(name, "temperature", *keywords)(a)


def ab(a):
    s, t = layers(a, "s"), layers(a, "t")
    values = [
        jnp.mean(losses.activation_boundary(x, y, margin=float(a["margin"])))
        for x, y in zip(s, t, strict=True)
    ]
    return 0.003 * sum(v * 2.0 ** (i + 1 - len(s)) for i, v in enumerate(values))


def vid(a):
    s, t = a["s"], a["t"]
    size = min(s.shape[1], t.shape[1])
    s, t = (pool(jnp.asarray(x, jnp.float32), (size, size)) for x in (s, t))
    hidden = jax.nn.relu(jax.nn.relu(s @ a["w1"].T) @ a["w2"].T)
    return jnp.mean(losses.variational_information(hidden @ a["w3"].T, t, a["log_scale"]))


def ofd(a):
    s, t = layers(a, "s"), layers(a, "t")
    total = 0.0
    for i, (x, y) in enumerate(zip(s, t, strict=True)):
        z = x @ a[f"conv{i}"].T
        z = (z - jnp.mean(z, (0, 1, 2))) / jnp.sqrt(jnp.var(z, (0, 1, 2)) + 1e-5)
        z = z * a[f"gamma{i}"] + a[f"beta{i}"]
        margin = losses.negative_margin(a[f"bn_gamma{i}"], a[f"bn_beta{i}"])
        total += 2.0 ** (i + 1 - len(s)) * jnp.mean(losses.margin_relu_distance(z, y, margin))
    return total


def srrl(a, weight=None):
    weight = float(a["weight"]) if weight is None else weight
    kernel = a["fc_weight"].T
    return jnp.mean(losses.softmax_regression(a["s"], a["t"], kernel, regression_weight=weight))


def srd(a):
    s, t = (jnp.mean(a[k], (1, 2)) for k in "st")
    s = s @ a["weight"].T + a["bias"]
    value = losses.log_sum_distance(s, t, exponent=float(a["exponent"]))
    temperature = float(a["temperature"])
    kl = losses.forward_kl(a["s_logits"], a["t_logits"], temperature=temperature)
    return value + jnp.mean(kl)


def cat_kd(a):
    resolution, normalize, binarize = (int(a[k]) for k in ("resolution", "normalize", "binarize"))
    return jnp.mean(
        losses.class_activation(
            a["s"], a["t"], resolution=resolution, normalize=bool(normalize),
            binarize=bool(binarize),
        )
    )  # fmt: skip


def mlld(a):
    views = (a[k] for k in ("s_weak", "t_weak", "s_strong", "t_strong"))
    return losses.multi_level_kl(*views, temperature=float(a["temperature"]))


def regional(name, *keywords):
    def loss(a):
        s, t = (jnp.swapaxes(a[k], 1, 2) for k in "st")
        values = getattr(losses, name)(s, t, a["labels"], **scalars(a, "temperature", *keywords))
        return float(a["temperature"]) ** 2 * jnp.mean(values)

    return loss


def token_mean(values, a):
    real = a["labels"] != -100
    return jnp.sum(jnp.where(real, values, 0.0)) / max(np.sum(real), 1)


def tokens(name, *keywords, **fixed):
    def loss(a):
        values = getattr(losses, name)(a["s"], a["t"], **scalars(a, *keywords), **fixed)
        return token_mean(values, a)

    return loss


def skew_fkl(a):
    return tokens("skew_forward_kl", "alpha")(a) + token_mean(losses.entropy(a["t"]), a)


def gjsd(a):
    values = losses.jensen_shannon(
        a["s"], a["t"], weight=float(a["beta"]), temperature=float(a["temperature"])
    )
    return token_mean(values, a)


def vocabularies(name, **keywords):
    def loss(a):
        skip = bool(a["skip_student_eos"])
        arrays = (a[k] for k in ("s", "t", "s_labels", "t_labels"))
        return jnp.mean(getattr(losses, name)(*arrays, skip_student_eos=skip, **keywords))

    return loss


def mlot(*weights):
    return vocabularies("multi_level_transport", level_weights=weights)


LOSSES = {
    "ab": ab,
    "akl": tokens("adaptive_kl"),
    "akl_tail": tokens("adaptive_kl", from_tail=True),
    "cat_kd": cat_kd,
    "cc": mean("correlation_congruence"),
    "cc_rbf": lambda a: losses.kernel_correlation_congruence(
        a["s"], a["t"], gamma=float(a["gamma"]), order=int(a["order"])
    ),
    "fsp": lambda a: jnp.mean(losses.flow_of_solution(layers(a, "s"), layers(a, "t"))),
    "ft": mean("spatial_factor_transfer"),
    "ft_flat": mean("factor_transfer"),
    "gjsd": gjsd,
    "kdsvd": lambda a: jnp.mean(
        losses.singular_vectors(layers(a, "s"), layers(a, "t"), count=int(a["k"]))
    ),
    "kdsvd_channels": lambda a: jnp.mean(
        losses.singular_vectors(layers(a, "s"), layers(a, "t"), count=int(a["k"]), channels=True)
    ),
    "logit_std": squared("standardized_kl"),
    "mlld": mlld,
    "mlot": mlot(1.0, 0.1, 0.1),
    "nst": mean("neuron_selectivity"),
    "ofd": ofd,
    "ofd_margin": lambda a: losses.negative_margin(a["gamma"], a["beta"]),
    "ofd_partial": lambda a: jnp.mean(losses.margin_relu_distance(a["s"], a["t"], a["margin"])),
    "sdd_dkd": regional("regional_decoupled_kl", "alpha", "beta"),
    "sdd_kd": regional("regional_kl"),
    "skew_fkl": skew_fkl,
    "skew_rkl": tokens("skew_reverse_kl", "alpha"),
    "srd": srd,
    "srrl": srrl,
    "uld": vocabularies("universal_logit_distance"),
    "vid": vid,
}  # fmt: skip
# summands and intermediates
PARTS = {
    ("akl", "head_weight"): None,  # in the value
    ("mlld", "instance"): None,
    ("mlld", "class"): None,
    ("mlld", "batch"): None,
    ("mlot", "absolute"): mlot(1.0, 0.0, 0.0),
    ("mlot", "logarithmic"): mlot(0.0, 1.0, 0.0),
    ("mlot", "sinkhorn"): mlot(0.0, 0.0, 1.0),
    ("skew_fkl", "kl"): tokens("skew_forward_kl", "alpha"),
    ("srrl", "feature"): lambda a: srrl(a, 0.0),
    ("srrl", "regression"): lambda a: srrl(a, 1.0) - srrl(a, 0.0),
}


def close(actual, expected, rtol, absolute=False):
    expected = np.asarray(expected, np.float64)
    # gradients below 1e-8 are 0 in float32
    scale = 1.0 if absolute else np.max(np.abs(expected), initial=1e-8)
    np.testing.assert_allclose(np.asarray(actual) / scale, expected / scale, rtol=0, atol=rtol)


def test_every_loss_of_the_file_is_compared():
    assert {loss for loss, _ in CASES} == set(LOSSES)


@pytest.mark.parametrize("case", CASES, ids="/".join)
def test_value_and_gradients(case):
    loss = case[0]
    inputs = {name: channels_last(x) for name, x in entries(case, "in").items()}
    inputs = {n: x.astype(np.float32) if x.dtype == float else x for n, x in inputs.items()}
    expected = {name: channels_last(x) for name, x in entries(case, "grad").items()}

    def value_of(arrays):
        return LOSSES[loss]({**inputs, **arrays})

    arrays = {name: inputs[name] for name in expected}
    if not expected:
        close(value_of({}), GOLDEN[f"{'/'.join(case)}/value"], 1e-5)
        return
    value, grads = jax.jit(jax.value_and_grad(value_of))(arrays)
    close(value, GOLDEN[f"{'/'.join(case)}/value"], 1e-5)
    for name, grad in grads.items():
        close(grad, expected[name], 1e-3, absolute=(loss, name) in ABSOLUTE)


@pytest.mark.parametrize("case", [c for c in CASES if entries(c, "part")], ids="/".join)
def test_parts(case):
    inputs = {name: channels_last(x) for name, x in entries(case, "in").items()}
    inputs = {n: x.astype(np.float32) if x.dtype == float else x for n, x in inputs.items()}
    parts = {}
    for name, expected in entries(case, "part").items():
        if name.startswith("margin"):
            layer = name.removeprefix("margin")
            norm = (inputs[f"bn_{side}{layer}"] for side in ("gamma", "beta"))
            close(losses.negative_margin(*norm), expected, 1e-5)
        elif PARTS[case[0], name] is not None:
            parts[name] = PARTS[case[0], name]
    if parts:
        logits = {k: inputs[k] for k in ("s", "t")}
        values = jax.jit(lambda a: {n: part({**inputs, **a}) for n, part in parts.items()})(logits)
        for name, value in values.items():
            close(value, entries(case, "part")[name], 1e-4)
