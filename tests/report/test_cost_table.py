"""The table of costs: units, ratios to the teacher, equal networks once."""

from kdjax.report import cost_table
from kdjax.report.results import PlayerSummary, RunSummary, VariantResult


def report(**student):
    teacher = PlayerSummary(
        model="mlp", parameters=26122, flops=5.2e4, size=104488, latency={"1": 0.05, "64": 0.5}
    )
    roles = {"teacher": teacher, "student": PlayerSummary(model="cnn", parameters=1210, **student)}
    variants = tuple(VariantResult(name=name, roles=roles, members=()) for name in "ab")
    return RunSummary(variants=variants, device="cpu x1")


def test_a_row_for_each_network(monkeypatch):
    monkeypatch.setattr(cost_table, "LATENCY_BATCHES", (1, 64))
    table = cost_table.costs(report(flops=2.6e3, size=4840, latency={"1": 0.012345}))
    assert table.header[2:7] == ("parameters", "bytes", "FLOPs", "ms, batch 1", "ms, batch 64")
    assert table.rows == (
        ("teacher", "mlp", "26.1 k", "104 k", "52 k", "0.05", "0.5", "-", "-"),
        ("student", "cnn", "1.21 k", "4.84 k", "2.6 k", "0.0123", "-", "21.6 x", "20 x"),
    )
    assert "cpu x1" in table.notes[0]


def test_an_old_report_has_no_costs():
    summary = PlayerSummary(model="mlp", parameters=3)
    variant = VariantResult(name="a", roles={"student": summary}, members=())
    assert cost_table.costs(RunSummary(variants=(variant,))) is None
