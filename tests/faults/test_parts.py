"""A sweep divided into programs has the results of the undivided one."""

import pytest

from kdjax.errors import RunError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.train import train


def config(rates):
    student = {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}}
    return {
        "num_steps": 6,
        "batch_size": 16,
        "log_every": 2,
        "devices": 1,
        "members_per_program": 1,
        "tensorboard": False,
        "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3, "validation": 0.2},
        "roles": {"student": student},
        "sweep": {"roles.student.optimizer.learning_rate": rates},
    }


def test_other_programs_continue_after_one_diverges(tmp_path):
    (outcome,) = train(build(config((1e30, 0.05))), tmp_path, lambda _: None)
    first, second = outcome.members
    assert [first.member, second.member] == [0, 1]
    assert "is not finite" in first.diverged
    assert second.diverged is None
    assert outcome.chosen["student"].members == (1,)


def test_a_sweep_fails_if_all_members_diverge(tmp_path):
    with pytest.raises(RunError, match="every member has diverged"):
        train(build(config((1e30, 2e30))), tmp_path, lambda _: None)
