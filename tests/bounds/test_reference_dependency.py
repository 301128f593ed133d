"""Exact dependency against golden values (another solver) and closed forms."""

import pathlib

import numpy as np
import pytest

from kdjax import bounds

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "dependency.npz")


@pytest.mark.parametrize("case", ["0", "1"])
def test_finite_joints_match_golden_values(case):
    joint, x, y = (GOLDEN[f"wdm_disc/{case}/{name}"] for name in "Jxy")
    assert bounds.dependency_exact(joint, x, y) == pytest.approx(
        GOLDEN[f"wdm_disc/{case}/l2"], rel=1e-7
    )
    assert bounds.dependency_exact(joint, x, y, metric="sum") == pytest.approx(
        GOLDEN[f"wdm_disc/{case}/l1sum"], rel=1e-7
    )
    assert bounds.dependency_total_variation(joint) == pytest.approx(
        GOLDEN[f"wdm_disc/{case}/discrete"], rel=1e-12
    )


@pytest.mark.parametrize("symbols", [2, 5, 10])
def test_dependency_of_a_copy_of_uniform_symbols(symbols):
    actual = bounds.dependency_total_variation(np.eye(symbols) / symbols)
    assert actual == pytest.approx(1 - 1 / symbols, rel=1e-12)
    assert actual == pytest.approx(GOLDEN[f"wdm_identity/{symbols}"], rel=1e-12)


def test_a_sample_matches_the_golden_value():
    s, t = GOLDEN["wdm_emp/B4/s"], GOLDEN["wdm_emp/B4/t"]
    actual = bounds.dependency_of_sample(s, t)
    assert actual == pytest.approx(GOLDEN["wdm_emp/B4/exact_l2"], rel=1e-7)


@pytest.mark.parametrize("r", ["0.0", "0.3", "0.7", "0.999"])
def test_gaussian_brackets_match_golden_values(r):
    actual = bounds.gaussian_dependency_bracket(-float(r))
    assert actual.lower == pytest.approx(GOLDEN[f"wdm_gauss/{r}/lower"], rel=1e-10, abs=1e-12)
    assert actual.upper == pytest.approx(GOLDEN[f"wdm_gauss/{r}/upper_W2"], rel=1e-10, abs=1e-12)
    expected = GOLDEN[f"wdm_gauss/{r}/mi"]
    assert actual.mutual_information == pytest.approx(expected, rel=1e-10, abs=1e-12)
