"""Study of the Gibbs algorithm by enumeration: exact gen and bounds against n and temperature."""

import dataclasses
from collections.abc import Sequence

from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import Inequality, chain
from kdjax.bounds.studies.results import (
    Panel,
    StudyResult,
    Table,
    Values,
    inequality_line,
    inequality_rows,
)

ROWS = (
    ("|gen|", "exact"),
    ("Gibbs identity", "exact"),
    ("contracted bound", "upper bound"),
    ("KL bound 0", "upper bound"),
    ("information bound", "upper bound"),
    ("contracted Gibbs bound", "upper bound"),
    ("Gibbs bound", "upper bound"),
)


@dataclasses.dataclass(frozen=True)
class GibbsSettings:
    """Arguments of `bounds.sign_network`; two of them vary.

    `sizes`: n at `inverse_temperature`; `temperatures`: inverse temperatures a at `size`.
    """

    widths: Sequence[int]
    sizes: Sequence[int]
    size: int
    temperatures: Sequence[float]
    inverse_temperature: float
    label_noise: float
    drop: float


def gibbs(settings: GibbsSettings) -> StudyResult:
    """Enumerate a sign network under the Gibbs posterior for several n and a, exactly.

    Raises:
        UserError: as `sign_network` and `enumerate_learner`.
    """

    def enumerated(n: int, a: float) -> tuple[Inequality, ...]:
        learner = sign_network(
            settings.widths,
            size=n,
            inverse_temperature=a,
            label_noise=settings.label_noise,
            drop=settings.drop,
        )
        return chain(learner)

    sizes, temperatures = settings.sizes, settings.temperatures
    size, a = settings.size, settings.inverse_temperature
    by_size = [enumerated(n, a) for n in sizes]
    by_temperature = [enumerated(size, other) for other in temperatures]
    panels = (
        _panel(f"a = {a:g}", "samples n", sizes, by_size, "y"),
        _panel(f"n = {size}", "inverse temperature a", temperatures, by_temperature, "xy"),
    )
    names = [f"n = {n}, a = {a:g}" for n in sizes]
    names += [f"n = {size}, a = {other:g}" for other in temperatures]
    learners = list(zip(names, by_size + by_temperature, strict=True))
    broken = [f"{row.name} at {name}" for name, rows in learners for row in rows if not row.holds]
    title = "Gibbs algorithm: exact gen beside its bounds"
    return StudyResult(title, panels, (_table(learners),), broken)


def _panel(
    title: str, axis: str, x: Values, chains: Sequence[Sequence[Inequality]], log: str
) -> Panel:
    lines = [
        inequality_line(name, kind, x, chains)
        for name, kind in ROWS
        if name != "Gibbs identity"  # the same line as gen
    ]
    return Panel(title, axis, "gen and bounds", lines, log)


def _table(learners: Sequence[tuple[str, Sequence[Inequality]]]) -> Table:
    names = [name for name, _ in ROWS]
    header = ("learner", *names, "every inequality")
    notes = (
        "All exact, by enumeration of data sets and weights. Gibbs identity: (I + L)/a, which must "
        "equal gen.",
    )
    return Table("By n and a", header, inequality_rows(learners, names), notes=notes)
