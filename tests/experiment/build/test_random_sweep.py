"""Random sweeps: the points that are drawn from distributions."""

import math

import numpy as np
import pytest
from scipy import stats

from kdjax.errors import UserError
from kdjax.experiment.build import random_sweep
from kdjax.experiment.build.build import build

TABLE = {"a": {"log_uniform": (1e-3, 1e-1)}, "b": {"uniform": [-1, 3]}, "c": {"choice": (1, 2, 4)}}


def test_points_follow_their_distributions():
    points = random_sweep.draw(TABLE, 256, 0)
    logs = [math.log10(point["a"]) for point in points]
    for values, low, high in ((logs, -3, -1), ([p["b"] for p in points], -1, 3)):
        assert stats.kstest(values, "uniform", (low, high - low)).statistic < 0.01
    counts = np.unique([point["c"] for point in points], return_counts=True)
    assert counts[0].tolist() == [1, 2, 4]
    assert (abs(counts[1] - 256 / 3) <= 2).all()


def test_points_depend_on_the_seed_and_begin_equally():
    points = random_sweep.draw(TABLE, 8, 1)
    assert random_sweep.draw(TABLE, 5, 1) == points[:5]
    assert random_sweep.draw(TABLE, 5, 2) != points[:5]


def test_numbers_are_those_of_a_report_and_stay_in_bounds():
    (low, high) = bounds = (1 / 3, 1 / 3 + 1e-9)
    points = random_sweep.draw({"a": {"uniform": (0, 1)}, "b": {"uniform": bounds}}, 16, 0)
    assert all(float(f"{point['a']:g}") == point["a"] for point in points)
    assert all(low <= point["b"] <= high for point in points)


def test_equal_points_count_once():
    points = random_sweep.draw({"x": (1, 2), "y": (3, 4)}, 64, 0)
    assert len(points) == 4
    assert random_sweep.draw({}, 64, 0) == [{}]


def test_every_point_has_all_seeds():
    table = {"seed": [0, 7], "x": {"uniform": (0, 1)}}
    members = random_sweep.members(table, 3, 0)
    points = random_sweep.draw({"x": table["x"]}, 3, 0)
    assert members == [{"seed": seed, **point} for seed in (0, 7) for point in points]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"uniform": (1, 1)}, r"sweep\.x\.uniform is \(1, 1\); low must be below high"),
        ({"uniform": (2.0, 1.0)}, "low must be below high"),
        ({"log_uniform": (0, 1)}, r"sweep\.x\.log_uniform is \(0, 1\); low must be > 0"),
        ({"log_uniform": (1,)}, r"must be two finite numbers, \(low, high\)"),
        ({"uniform": (0, math.inf)}, "must be two finite numbers"),
        ({"normal": (0, 1)}, "one of uniform, log_uniform, choice"),
        ({}, "one of uniform, log_uniform, choice"),
        ({"choice": ()}, r"sweep\.x\.choice is \(\); it must be a list of one value"),
        ("12", r"sweep\.x is '12'; it must be a list of one value"),
    ],
)
def test_errors(entry, message):
    with pytest.raises(UserError, match=message) as error:
        random_sweep.members({"seed": [0], "x": entry}, 4, 0)
    assert "\n" not in str(error.value)


def test_errors_of_the_sweep():
    with pytest.raises(UserError, match="sweep_members is 0; it must be >= 1"):
        random_sweep.members({"seed": (0,), "x": (1, 2)}, 0, 0)
    with pytest.raises(UserError, match=r"sweep\.seed is .*must be a list"):
        random_sweep.members({"seed": {"uniform": (0, 9)}, "x": (1, 2)}, 2, 0)
    with pytest.raises(UserError, match="twice"):
        random_sweep.members({"seed": (0, 0), "x": (1, 2)}, 2, 0)


@pytest.mark.parametrize("mode", ["grid", "zip"])
def test_a_distribution_needs_a_random_sweep(mode):
    config = {
        "batch_size": 16,
        "data": {"name": "digits", "limit": 100},
        "roles": {"student": {"model": {"name": "mlp"}, "terms": {"ce": {}}}},
        "sweep": {"roles.student.optimizer.learning_rate": {"uniform": (0, 1)}},
        "sweep_mode": mode,
    }
    message = (
        rf"is \{{'uniform': \(0, 1\)\}}; a distribution needs .* {mode} needs a list of values"
    )
    with pytest.raises(UserError, match=message):
        build(config)
