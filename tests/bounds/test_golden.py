"""Golden values of independent solvers: exact and entropic transport, neighbours, coefficients."""

import pathlib

import jax
import numpy as np
import pytest

from kdjax import bounds

GOLDEN = dict(np.load(pathlib.Path(__file__).resolve().parents[1] / "golden" / "bounds.npz"))
CLOSE = {"rtol": 1e-10, "atol": 1e-12}


def cases(prefix):
    return sorted({"/".join(k.split("/")[:2]) for k in GOLDEN if k.startswith(prefix + "/")})


def arrays(case, *names):
    return [GOLDEN[f"{case}/{name}"] for name in names]


@pytest.mark.parametrize("case", cases("knnkl"))
def test_knn_kl(case):
    x, y, truth = arrays(case, "x", "y", "true")
    for k in (1, 3, 5):
        np.testing.assert_allclose(bounds.knn_kl(x, y, k=k), GOLDEN[f"{case}/k{k}"], **CLOSE)
    assert abs(bounds.knn_kl(x, y, k=5) - truth) < 0.1  # hundreds of samples


def test_ksg():
    x, y, value, truth = arrays("ksg/0", "x", "y", "k3", "true")
    np.testing.assert_allclose(bounds.ksg_mutual_information(x, y, k=3), value, **CLOSE)
    assert abs(value - truth) < 0.1


@pytest.mark.parametrize("case", cases("sdpi"))
def test_contraction(case):
    kind, first, second = case.removeprefix("sdpi/").split("_")
    if kind == "gauss":
        value = bounds.gaussian_noise_contraction(
            float(first.removeprefix("diam")), float(second.removeprefix("sigma"))
        )
        np.testing.assert_allclose(value, GOLDEN[case].min(), **CLOSE)
        return
    q = float(first.removeprefix("delta"))
    if kind == "dropout":
        value = bounds.dropout_contraction(q, int(second.removeprefix("d")))
    else:
        value = bounds.dropconnect_contraction(q, *map(int, second.split("x")))
    np.testing.assert_allclose(value, GOLDEN[case], **CLOSE)


def test_gaussian_classification():
    for n, rank in ((2, 1), (2, 5), (10, 1), (10, 5)):
        np.testing.assert_allclose(
            bounds.gaussian_layer_kl(rank, n), GOLDEN[f"bgc/kl_n{n}_r{rank}"], **CLOSE
        )
    for n in (2, 10, 1000):
        np.testing.assert_allclose(
            bounds.gaussian_layer_w2_squared(1.0, 1.0, n), GOLDEN[f"bgc/ew2sq_n{n}"], rtol=1e-10
        )


@pytest.mark.parametrize("case", cases("ot"))
def test_exact_transport(case):
    x, y, a, b = arrays(case, "x", "y", "a", "b")
    for metric in ("euclidean", "sqeuclidean", "cityblock"):
        for weights, name in (((None, None), "uniform"), ((a, b), "weighted")):
            value = bounds.wasserstein_exact(x, y, *weights, metric=metric)
            np.testing.assert_allclose(
                value, GOLDEN[f"{case}/emd2_{metric}_{name}"], **CLOSE, err_msg=metric + name
            )
    if f"{case}/scipy_w1" in GOLDEN:
        for weights, name in (((None, None), "scipy_w1"), ((a, b), "scipy_w1_weighted")):
            value = bounds.wasserstein_1d(x[:, 0], y[:, 0], *weights)
            np.testing.assert_allclose(value, GOLDEN[f"{case}/{name}"], **CLOSE)


@pytest.mark.parametrize("case", cases("ot"))
def test_entropic_transport(case):
    x, y, a, b = arrays(case, "x", "y", "a", "b")
    actual = bounds.wasserstein_entropic(x, y, a, b, epsilon=1.0)
    assert actual.converged
    # Sinkhorn stops at a marginal error of 1e-3; the reference iterated to 1e-9
    np.testing.assert_allclose(actual.value, GOLDEN[f"{case}/sinkhorn_cost_reg1"], rtol=2e-3)
    assert actual.value >= GOLDEN[f"{case}/emd2_euclidean_weighted"] - 1e-12


def test_entropic_transport_in_float64():
    case = cases("ot")[0]
    x, y, a, b = arrays(case, "x", "y", "a", "b")
    with jax.enable_x64(True):
        actual = bounds.wasserstein_entropic(x, y, a, b, epsilon=1.0, threshold=1e-12)
    # the reference iterated to 1e-9
    np.testing.assert_allclose(actual.value, GOLDEN[f"{case}/sinkhorn_cost_reg1"], rtol=1e-8)


@pytest.mark.parametrize("case", cases("w1_1d"))
def test_one_dimension(case):
    x, y, a, b = arrays(case, "x", "y", "a", "b")
    np.testing.assert_allclose(bounds.wasserstein_1d(x, y), GOLDEN[f"{case}/w1"], **CLOSE)
    np.testing.assert_allclose(
        bounds.wasserstein_1d(x, y, a, b), GOLDEN[f"{case}/w1_weighted"], **CLOSE
    )


def test_sliced():
    x, y, theta = (GOLDEN[f"sliced/{name}"] for name in ("x", "y", "theta"))
    np.testing.assert_allclose(
        bounds.sliced_wasserstein(x, y, theta), GOLDEN["sliced/sw1"], **CLOSE
    )


@pytest.mark.parametrize("case", cases("gauss"))
def test_gaussian_divergences(case):
    m0, cov0, m1, cov1 = arrays(case, "m0", "S0", "m1", "S1")
    np.testing.assert_allclose(
        bounds.gaussian_kl(m0, cov0, m1, cov1), GOLDEN[f"{case}/kl_01"], **CLOSE
    )
    np.testing.assert_allclose(
        bounds.gaussian_w2_squared(m0, cov0, m1, cov1), GOLDEN[f"{case}/w2sq"], **CLOSE
    )
    same = bounds.gaussian_w2_squared(m0, cov0, m1, cov0)
    np.testing.assert_allclose(same**0.5, GOLDEN[f"{case}/w1_same_cov"], **CLOSE)
