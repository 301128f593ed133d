"""The table of what each network costs, and of its compression against the teacher."""

from kdjax.report.results import PlayerSummary, RunSummary
from kdjax.report.table import Table

_TEACHER = "teacher"  # the role that others are compared with
LATENCY_BATCHES = (1, 64)  # sizes at which a run measures the latency of its networks
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def costs(report: RunSummary) -> Table | None:
    """Tabulate parameters, size, work and latency of each network.

    Returns:
      A table, or None of a report that holds no costs.
    """
    rows: dict[tuple[str, ...], None] = {}  # equal networks of several variants are one row
    for variant in report.variants:
        teacher = variant.roles.get(_TEACHER)
        for role, player in variant.roles.items():
            if player.size is not None:
                other = None if role == _TEACHER else teacher
                rows[(role, player.model, *_numbers(player), *_ratios(player, other))] = None
    if not rows:
        return None
    latencies = tuple(f"ms, batch {count}" for count in LATENCY_BATCHES)
    return Table(
        "Cost of a forward pass",
        ("role", "model", "parameters", "bytes", "FLOPs", *latencies, "smaller", "less work"),
        tuple(rows),
        text_columns=2,
        notes=(
            "Bytes of the weights. FLOPs of one example, two for a multiplication and an addition,"
            f" by XLA's analysis of the program. Latency: the median on {report.device or '-'}."
            " Smaller, less work: the teacher's parameters and FLOPs over the network's.",
        ),
    )


def _numbers(player: PlayerSummary) -> tuple[str, ...]:
    numbers = (player.parameters, player.size, player.flops)
    latency = (player.latency.get(str(count)) for count in LATENCY_BATCHES)
    return (*map(_scaled, numbers), *("-" if ms is None else f"{ms:.3g}" for ms in latency))


def _ratios(player: PlayerSummary, teacher: PlayerSummary | None) -> tuple[str, str]:
    if teacher is None:
        return "-", "-"
    return (
        _ratio(teacher.parameters, player.parameters),
        _ratio(teacher.flops, player.flops),
    )


def _ratio(teacher: float | None, own: float | None) -> str:
    return f"{teacher / own:.3g} x" if teacher and own else "-"


def _scaled(value: float | None) -> str:
    """Format a count with a unit of thousands.

    >>> _scaled(26122), _scaled(12)
    ('26.1 k', '12')
    """
    if value is None:
        return "-"
    for unit, name in _UNITS:
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:g}"
