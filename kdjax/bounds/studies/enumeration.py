"""Study of one tiny learner by exact enumeration: all bounds of its chain of inequalities."""

import dataclasses
from collections.abc import Sequence

from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import chain
from kdjax.bounds.studies.results import Line, Panel, StudyResult, Table


@dataclasses.dataclass(frozen=True)
class LaboratorySettings:
    """Arguments of `bounds.sign_network`."""

    widths: Sequence[int]
    size: int
    inverse_temperature: float
    label_noise: float
    drop: float
    levels: Sequence[float]


def laboratory(settings: LaboratorySettings) -> StudyResult:
    """Enumerate one sign network and list its true gen and every bound in order, all exactly.

    Raises:
        UserError: as `sign_network` and `enumerate_learner`.
    """
    rows = chain(sign_network(**dataclasses.asdict(settings)))
    drawn = [row for row in rows if not row.name.startswith(("divergence", "decomposition"))]
    drawn.sort(key=lambda row: row.value)
    names = [row.name for row in drawn]
    line = Line("value", "exact", range(len(drawn)), [row.value for row in drawn], joined=False)
    panel = Panel("gen and its bounds, all exact", "", "unit of the loss", (line,), "y", names)
    table = Table(
        "The chain",
        ("quantity", "must be", "value", "holds"),
        [
            (
                row.name,
                f"{'equal to' if row.equals else 'at least'} {', '.join(row.at_least)}"
                if row.at_least
                else "",
                row.value,
                "yes" if row.holds else "NO",
            )
            for row in rows
        ],
        words=2,
        notes=("Divergences and decompositions in nats, all else in the unit of the loss.",),
    )
    title = (
        f"Exact laboratory: widths {tuple(settings.widths)}, n = {settings.size}, "
        f"a = {settings.inverse_temperature:g}"
    )
    return StudyResult(title, (panel,), (table,), [row.name for row in rows if not row.holds])
