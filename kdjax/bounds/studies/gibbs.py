"""The Gibbs algorithm enumerated: exact gen beside its bounds, against n and the temperature."""

from collections.abc import Sequence

from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import Inequality, chain
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study

__all__ = ["gibbs"]

ROWS = (
    ("|gen|", "exact"),
    ("Gibbs identity", "exact"),
    ("contracted bound", "upper bound"),
    ("KL bound 0", "upper bound"),
    ("information bound", "upper bound"),
    ("contracted Gibbs bound", "upper bound"),
    ("Gibbs bound", "upper bound"),
)


def gibbs(
    *,
    widths: Sequence[int],
    sizes: Sequence[int],
    size: int,
    temperatures: Sequence[float],
    inverse_temperature: float,
    label_noise: float,
    drop: float,
) -> Study:
    """Enumerate a sign network under the Gibbs posterior for several n and a.

    Args:
        widths: of the network, input first, 1 last.
        sizes: n, at `inverse_temperature`.
        size: n where it does not vary.
        temperatures: inverse temperatures a, at `size`.
        inverse_temperature: a where it does not vary.
        label_noise: probability that a label is flipped.
        drop: probability that dropout drops a hidden unit, in training and at test time.

    Returns:
        A Study with two panels; every number is exact.

    Raises:
        UserError: as `sign_network` and `enumerate_learner`.
    """

    def look(n: int, a: float) -> tuple[Inequality, ...]:
        learner = sign_network(
            widths, size=n, inverse_temperature=a, label_noise=label_noise, drop=drop
        )
        return chain(learner)

    by_size = [look(n, inverse_temperature) for n in sizes]
    by_temperature = [look(size, a) for a in temperatures]
    panels = (
        _panel(f"a = {inverse_temperature:g}", "samples n", sizes, by_size, "y"),
        _panel(f"n = {size}", "inverse temperature a", temperatures, by_temperature, "xy"),
    )
    named = [(n, inverse_temperature, rows) for n, rows in zip(sizes, by_size, strict=True)]
    named += [(size, a, rows) for a, rows in zip(temperatures, by_temperature, strict=True)]
    broken = [
        f"{row.name} at n = {n}, a = {a:g}" for n, a, rows in named for row in rows if not row.holds
    ]
    return Study("Gibbs algorithm: exact gen beside its bounds", panels, (_sheet(named),), broken)


def _value(rows: Sequence[Inequality], name: str) -> float:
    return next(row.value for row in rows if row.name == name)


def _panel(
    title: str,
    name: str,
    x: Sequence[float],
    chains: Sequence[Sequence[Inequality]],
    log: str,
) -> Panel:
    lines = [
        Line("gen" if row == "|gen|" else row, kind, x, [_value(rows, row) for rows in chains])
        for row, kind in ROWS
        if row != "Gibbs identity"  # the same line as gen
    ]
    return Panel(title, name, "gen and bounds", lines, log)


def _sheet(named: Sequence[tuple[int, float, Sequence[Inequality]]]) -> Sheet:
    rows = [
        (
            f"n = {n}, a = {a:g}",
            *(_value(found, name) for name, _ in ROWS),
            "held" if all(row.holds for row in found) else "VIOLATED",
        )
        for n, a, found in named
    ]
    header = ("learner", *(name for name, _ in ROWS), "every inequality")
    notes = (
        "All exact, by enumeration of data sets and weights. Gibbs identity: (I + L)/a, which must "
        "equal gen.",
    )
    return Sheet("By n and a", header, rows, notes=notes)
