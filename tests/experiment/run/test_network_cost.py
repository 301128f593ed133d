"""The cost of networks at the end of a run."""

import dataclasses

from kdjax.experiment.build.build import build
from kdjax.experiment.run.network_cost import add_costs
from kdjax.report import cost_table
from kdjax.report.results import PlayerSummary, VariantResult
from tests.faults.commands import base


def test_costs_of_a_small_network(monkeypatch):
    monkeypatch.setattr(cost_table, "LATENCY_BATCHES", (2,))
    experiment = build(base())
    player = PlayerSummary(model="mlp", parameters=123)
    roles = {"teacher": player, "student": player}
    (result,) = add_costs(experiment, [VariantResult(name="default", roles=roles, members=())])
    teacher, student = result.roles["teacher"], result.roles["student"]
    parameters = 17 * 8 + 9 * 3  # without adapters, which the given number may count
    assert teacher.parameters == parameters
    same = {"parameters": 123, "flops": None, "size": None, "latency": {}}
    assert dataclasses.replace(teacher, **same) == player
    assert teacher.size == 4 * parameters
    multiplications = 16 * 8 + 8 * 3
    assert 2 * multiplications <= teacher.flops < 2.5 * multiplications  # and the biases, the ReLU
    assert student.flops < teacher.flops
    assert set(teacher.latency) == {"2"}
    assert teacher.latency["2"] > 0
