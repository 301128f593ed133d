"""The exact laboratory as a study: the whole chain of inequalities of one tiny learner."""

from collections.abc import Sequence

from kdjax.bounds.enumeration import sign_network
from kdjax.bounds.inequalities import chain
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study

__all__ = ["laboratory"]


def laboratory(
    *,
    widths: Sequence[int],
    size: int,
    inverse_temperature: float,
    label_noise: float,
    drop: float,
    levels: Sequence[float],
) -> Study:
    """Enumerate one sign network and print every bound, in order, beside its true gen.

    Args:
        widths: of the network, input first, 1 last.
        size: n.
        inverse_temperature: a of the Gibbs posterior; inf is empirical risk minimisation.
        label_noise: probability that a label is flipped.
        drop: probability that dropout drops a hidden unit, in training and at test time.
        levels: values that a weight takes.

    Returns:
        A Study; every number is exact.

    Raises:
        UserError: as `sign_network` and `enumerate_learner`.
    """
    rows = chain(
        sign_network(
            widths,
            size=size,
            inverse_temperature=inverse_temperature,
            label_noise=label_noise,
            drop=drop,
            levels=levels,
        )
    )
    inner = ("divergence", "decomposition")
    shown = sorted((r for r in rows if not r.name.startswith(inner)), key=lambda r: r.value)
    names = [row.name for row in shown]
    line = Line("value", "exact", range(len(shown)), [row.value for row in shown], joined=False)
    panel = Panel("gen and its bounds, all exact", "", "unit of the loss", (line,), "y", names)
    sheet = Sheet(
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
    name = f"Exact laboratory: widths {tuple(widths)}, n = {size}, a = {inverse_temperature:g}"
    return Study(name, (panel,), (sheet,), [row.name for row in rows if not row.holds])
