"""Divergences against arrays computed by unmodified independent implementations."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from tests.losses.references import close, gradients

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "divergence.npz")
TRANSPORT = np.load(pathlib.Path(__file__).parents[1] / "golden" / "transport_divergence.npz")
CASES = ["b5_c2", "b8_c10", "equal_b8_c100", "extreme50_b8_c10", "onehot50_right_b6_c10"]
CASES += ["zeros_b4_c10", "b16_c100"]
entropy = jax.jit(losses.entropy)
FOUR = [losses.forward_kl, losses.reverse_kl, losses.jensen_shannon, losses.total_variation]


def golden(case, key):
    return GOLDEN[f"{case}/{key}"]


def logits_of(case):
    return golden(case, "in/s_logits"), golden(case, "in/t_logits")


@pytest.mark.parametrize("temperature", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_both_directions_and_entropies(case, temperature):
    key = f"persample_switokd_T{temperature}/f64/"
    s, t = logits_of(case)
    for function, name in ((losses.forward_kl, "f"), (losses.reverse_kl, "r")):
        value, (grad_s, grad_t) = gradients(function, s, t, temperature=float(temperature))
        close(value, golden(case, f"{key}{name}kl"))
        if f"{case}/{key}g{name}s" in GOLDEN:
            close(grad_s, golden(case, f"{key}g{name}s"))
            close(grad_t, golden(case, f"{key}g{name}t"))
    close(entropy(s, temperature=float(temperature)), golden(case, f"{key}Hs"))
    close(entropy(t, temperature=float(temperature)), golden(case, f"{key}Ht"))


@pytest.mark.parametrize("emphasis", [1.0, 3.0])
@pytest.mark.parametrize("case", ["b5_c2", "b8_c10", "equal_b8_c100", "zeros_b4_c10"])
def test_balanced_kl_is_the_golden_combination(case, emphasis):
    s, t = logits_of(case)
    for entropy_temperature in (1, 4):
        entropies = f"persample_switokd_T{entropy_temperature}/f64/H"
        h_s, h_t = golden(case, entropies + "s"), golden(case, entropies + "t")
        d, v = np.where(h_t > h_s, emphasis, 1.0), np.where(h_s > h_t, emphasis, 1.0)
        of = {k: golden(case, f"persample_switokd_T4/f64/{k}") for k in
              ("fkl", "rkl", "gfs", "grs", "gft", "grt")}  # fmt: skip
        scalars = {"temperature": 4.0, "entropy_temperature": float(entropy_temperature)}
        value, (grad_s, grad_t) = gradients(
            losses.balanced_kl, s, t, emphasis=emphasis, **scalars
        )  # fmt: skip
        close(value, d * of["fkl"] + v * of["rkl"])
        close(grad_s, d[:, None] * of["gfs"] + v[:, None] * of["grs"])
        close(grad_t, d[:, None] * of["gft"] + v[:, None] * of["grt"])


@pytest.mark.parametrize("case", ["b5_c2", "b8_c10", "equal_b8_c100", "zeros_b4_c10"])
def test_an_independent_balanced_loss_has_the_same_student_gradient(case):
    # That implementation uses the cross-entropy with the teacher as its forward part.
    s, t = logits_of(case)
    scalars = {"temperature": 1.0, "entropy_temperature": 1.0, "emphasis": 3.0}
    _, (grad, _) = gradients(losses.balanced_kl, s, t, **scalars)
    close(grad / len(s), golden(case, "BDKD_abkd_w3/f32/grad_s"))


@pytest.mark.parametrize("case", CASES)
def test_hinton_needs_t_squared_and_the_batch_mean(case):
    s, t = logits_of(case)
    for temperature in (1.0, 2.0, 4.0):
        value, _ = gradients(losses.forward_kl, s, t, temperature=temperature)
        close(
            temperature**2 * jnp.mean(value),
            golden(case, f"KD_mdistiller_T{temperature:.0f}/f64/value"),
        )


@jax.jit
@jax.value_and_grad
def mutual_loss(own, others, labels):
    toward = sum(jnp.mean(losses.forward_kl(own, other)) for other in others)
    return jnp.mean(losses.cross_entropy(own, labels)) + toward / len(others)


@pytest.mark.parametrize("case", CASES)
def test_mutual_learning_of_three(case):
    peers = [golden(case, f"in/{k}_logits") for k in ("s", "t", "third")]
    labels = golden(case, "in/labels")
    for i, own in enumerate(peers):
        value, grad = mutual_loss(own, peers[:i] + peers[i + 1 :], labels)
        close(value, golden(case, "DML3_chxy95/f64/values")[i])
        if f"{case}/DML3_chxy95/f64/grad_{i}" in GOLDEN:
            close(grad, golden(case, f"DML3_chxy95/f64/grad_{i}"))


@pytest.mark.parametrize("case", ["B4_C3_normal", "B32_C2_onehot50", "B4_C100_extremenoisy"])
def test_four_divergences_at_temperature_two(case):
    s, t = TRANSPORT[f"{case}/student"], TRANSPORT[f"{case}/teacher"]
    for function, name in zip(FOUR, ("kl", "rkl", "js", "tv"), strict=True):
        close(
            jnp.mean(gradients(function, s, t, temperature=2.0)[0]), TRANSPORT[f"{case}/{name}_T2"]
        )


@pytest.mark.parametrize("case", CASES)
def test_l1_gap_is_twice_the_total_variation(case):
    value, (grad_s, grad_t) = gradients(losses.total_variation, *logits_of(case))
    close(2 * jnp.mean(value), golden(case, "L1_gap_switokd_T1/f64/value"))
    # At logits of +-50 many probabilities tie exactly; there any subgradient is right.
    if f"{case}/L1_gap_switokd_T1/f64/grad_s" in GOLDEN and case != "extreme50_b8_c10":
        close(2 * grad_s / len(value), golden(case, "L1_gap_switokd_T1/f64/grad_s"))
        close(2 * grad_t / len(value), golden(case, "L1_gap_switokd_T1/f64/grad_t"))
