"""Study of trained students: correlation of bounds and other quantities with the loss gap.

Students of one setting (a variant with its swept values) differ by their seed; see `correlation`
for the intervals.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from kdjax.bounds.studies.correlation import Correlation, Interval, spearman, spearman_by_setting
from kdjax.bounds.studies.networks import NetworkBounds, layer_order
from kdjax.bounds.studies.results import Line, Panel, StudyResult, Table
from kdjax.errors import UserError

LEAST = 30  # students needed for a useful correlation

Groups = Mapping[str, Sequence[NetworkBounds]]  # by variant, the baseline first


def tracking(
    networks: Sequence[NetworkBounds],
    chosen: Mapping[str, Sequence[int]],
    *,
    role: str = "student",
    draws: int = 2000,
    seed: int = 0,
    least: int = LEAST,
) -> StudyResult:
    """Compare bounds and gaps, by variant and over all students.

    Args:
        networks: all networks of a run.
        chosen: variant -> members selected on validation, one for each seed; the first variant
            is the baseline.
        role: whose networks.
        draws: bootstrap draws of settings.
        seed: of these draws.
        least: minimum number of students.

    Returns:
        StudyResult; `broken` names students whose gap exceeds their bound.

    Raises:
        UserError: too few students or settings.
    """
    students = [n for n in networks if n.role == role and _finite(n)]
    if len(students) < least:
        raise UserError(f"{len(students)} finite networks of {role}; a correlation needs {least}")
    settings = [(network.variant, network.sweep_values) for network in students]
    gaps = [network.gap for network in students]
    columns = _candidates(students)
    correlations = spearman_by_setting(columns, gaps, settings, draws=draws, seed=seed)
    correlations |= spearman_by_setting(
        {"bound given the range": columns["bound at the funnel"]},
        gaps,
        settings,
        draws=draws,
        seed=seed,
        control=columns["range of the logits"],
    )
    groups: dict[str, list[NetworkBounds]] = {}
    for network in students:
        groups.setdefault(network.variant, []).append(network)
    selected = {name: _selected(group, chosen.get(name, ())) for name, group in groups.items()}
    panels = (
        _cloud(groups, "bound", "upper bound", "bound at the funnel, nats", lambda n: n.bound),
        _cloud(groups, "range of the logits", "exact", "range, nats", lambda n: n.logit_range),
        _levels(selected),
        _coefficients(correlations),
    )
    tables = (
        _variant_table(selected, groups),
        _funnel_table(groups),
        _correlation_table(correlations, len(students), len(set(settings))),
        _table_within(groups),
    )
    broken = [f"{n.variant} #{n.member}" for n in students if not n.held]
    title = f"Bounds of {len(students)} {role}s in {len(set(settings))} settings"
    return StudyResult(title, panels, tables, broken)


def _finite(network: NetworkBounds) -> bool:
    layers = [(layer.w1, layer.bound, layer.tail) for layer in network.layers]
    return bool(np.isfinite(network.gap) and np.isfinite(layers).all())


def _selected(group: Sequence[NetworkBounds], members: Sequence[int]) -> list[NetworkBounds]:
    networks = [network for network in group if network.member in members]
    if not networks:
        name = group[0].variant
        raise UserError(f"no finite network of {name} among the chosen members {sorted(members)}")
    return networks


def _candidates(students: Sequence[NetworkBounds]) -> dict[str, list[float]]:
    """Return candidates to correlate with the gap: bounds, their factors, training quantities."""
    columns: dict[str, Callable[[NetworkBounds], float]] = {
        "bound at the funnel": lambda n: n.bound,
        "bound at the input": lambda n: n.layers[0].bound,
        "W1 at the logits": lambda n: n.layers[-1].w1,
        "the same, shuffled": lambda n: n.layers[-1].baseline,
        "their ratio": lambda n: n.layers[-1].w1 / n.layers[-1].baseline,
        "sliced W1 at the logits": lambda n: n.layers[-1].sliced,
        "Lipschitz constant": lambda n: n.layers[0].tail,
        "range of the logits": lambda n: n.logit_range,
        "training loss, negated": lambda n: -n.train_loss,
    }
    return {name: [float(value(n)) for n in students] for name, value in columns.items()}


def _cloud(
    groups: Groups, quantity: str, kind: str, x: str, value: Callable[[NetworkBounds], float]
) -> Panel:
    lines = [
        Line(name, kind, [value(n) for n in group], [n.gap for n in group], joined=False)
        for name, group in groups.items()
    ]
    return Panel(f"loss gap and {quantity}", x, "loss gap, nats", lines, "x")


def _layers(groups: Groups) -> list[str]:
    networks = (network for group in groups.values() for network in group)
    return layer_order([layer.name for layer in network.layers] for network in networks)


def _levels(selected: Groups) -> Panel:
    """Return the mean bound by layer of the selected students of each variant."""
    lines, names = [], _layers(selected)
    for variant, group in selected.items():
        places = [names.index(layer.name) for layer in group[0].layers]
        bounds = np.array([[layer.bound for layer in network.layers] for network in group])
        lines.append(Line(variant, "upper bound", places, bounds.mean(axis=0).tolist()))
    return Panel("bound by layer, chosen settings", "layer", "bound, nats", lines, "y", names)


def _coefficients(correlations: Mapping[str, Correlation]) -> Panel:
    """Return three points for each candidate, with half widths of the intervals as errors."""
    lines = []
    for index, level in enumerate(("overall", "between", "within")):
        intervals: list[Interval] = [getattr(c, level) for c in correlations.values()]
        lines.append(
            Line(
                f"{level} settings" if level != "overall" else "overall",
                "estimate",
                [x + 0.2 * (index - 1) for x in range(len(intervals))],  # side by side
                [interval.value for interval in intervals],
                [(interval.high - interval.low) / 2 for interval in intervals],
                joined=False,
            )
        )
    return Panel("rank correlation with the gap", "", "Spearman", lines, "", list(correlations))


def _spread(values: Sequence[float]) -> str:
    sd = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.4g} ± {sd:.2g}"


def _ratio_of_means(pairs: Sequence[tuple[float, float]]) -> str:
    """Return the mean of the firsts over that of the seconds; "-" if the latter may be 0."""
    if not pairs:
        return "-"
    above, below = np.array(pairs).T
    error = np.std(below, ddof=1) / math.sqrt(len(below)) if len(below) > 1 else 0.0
    return f"{above.mean() / below.mean():.4g}" if below.mean() > error else "-"


def _variant_table(selected: Groups, groups: Groups) -> Table:
    """Tabulate selected students: gaps, bounds, and ratios to the baseline paired by seed."""
    baseline = next(iter(selected))
    base = {n.values["seed"]: n for n in selected[baseline]}
    all_base = {_key(n): n for n in groups[baseline]}
    rows = []
    for variant, group in selected.items():
        pairs = [(n, base[n.values["seed"]]) for n in group if n.values["seed"] in base]
        rows.append(
            (
                variant,
                ", ".join(f"{v:g}" for k, v in group[0].values.items() if k != "seed"),
                len(group),
                _spread([n.train_loss for n in group]),
                _spread([n.gap for n in group]),
                _spread([n.bound for n in group]),
                _ratio_of_means([(n.bound, n.gap) for n in group]),
                _spread([n.logit_range for n in group]),
                _spread([a.bound / b.bound for a, b in pairs]),
                _ratio_of_means([(a.gap, b.gap) for a, b in pairs]),
                _ratio_at_equal_values(groups[variant], all_base),
            )
        )
    header = (
        "method",
        "chosen values",
        "seeds",
        "training loss",
        "gap",
        "bound at the funnel",
        "bound / gap",
        "range of logits",
        f"bound over {baseline}'s",
        f"gap over {baseline}'s",
        "bounds' ratio at equal values",
    )
    notes = (
        "Mean ± sd over seeds at the values that validation chose; bounds' ratio paired by seed, "
        "ratios of gaps of the means (-: a gap within a standard error of 0, or below). Last "
        "column: at equal swept values and seeds, geometric mean over all of them (least and "
        "largest).",
    )
    return Table("By method", header, rows, words=2, notes=notes)


def _key(network: NetworkBounds) -> Hashable:
    return tuple(sorted(network.values.items()))


def _ratio_at_equal_values(
    group: Sequence[NetworkBounds], base: Mapping[Hashable, NetworkBounds]
) -> str:
    logs = [math.log(n.bound / base[_key(n)].bound) for n in group if _key(n) in base]
    if not logs:
        return ""
    mean, least, most = (math.exp(v) for v in (sum(logs) / len(logs), min(logs), max(logs)))
    return f"{mean:.2f} ({least:.2f} to {most:.2f})"


def _funnel_table(groups: Groups) -> Table:
    """Count students by funnel layer, also by that of the sliced lower bound."""
    names = _layers(groups)
    rows = []
    for variant, group in groups.items():
        exact = Counter(n.funnel for n in group)
        sliced = Counter(
            min(n.layers, key=lambda x: x.sliced * max(1.0, x.tail)).name for n in group
        )
        rows.append((variant, len(group), *(exact[x] for x in names), *(sliced[x] for x in names)))
    header = (
        "method",
        "students",
        *(f"{name}, exact" for name in names),
        *(f"{name}, sliced" for name in names),
    )
    notes = (
        "With exact distances the last layer is the smallest by necessity: W1 there is at most "
        "max(1, L) W1 at any layer before it. Sliced values are lower values: their funnel is a "
        "proxy.",
    )
    return Table("Funnel layer", header, rows, notes=notes)


def _correlation_table(
    correlations: Mapping[str, Correlation], students: int, settings: int
) -> Table:
    rows = [(name, *map(_with_interval, correlation)) for name, correlation in correlations.items()]
    header = ("against the loss gap", "overall", "between settings", "within settings")
    notes = (
        f"Spearman over {students} students in {settings} settings (method and swept values). 95 % "
        "intervals draw whole settings: students of one differ by the seed alone. All share one "
        "split of the data. Shuffled: both samples mixed and divided anew, so that training and "
        "test examples cannot be told apart. Training loss: no test example enters. Last row: "
        "partial, the range of the logits held.",
    )
    return Table("What tracks the gap", header, rows, notes=notes)


def _with_interval(x: Interval) -> str:
    return f"{x.value:.2f}" + (f" [{x.low:.2f}, {x.high:.2f}]" if math.isfinite(x.low) else "")


def _table_within(groups: Groups) -> Table:
    """Tabulate Spearman's correlation of bound and gap in the students of each variant alone."""
    rows = []
    for variant, group in groups.items():
        gap, settings = [n.gap for n in group], {n.sweep_values for n in group}
        of_bound, of_range = (
            spearman(values, gap)
            for values in ([n.bound for n in group], [n.logit_range for n in group])
        )
        rows.append((variant, len(group), len(settings), of_bound, of_range))
    header = ("method", "students", "settings", "bound and gap", "range of logits and gap")
    return Table("Spearman inside each method", header, rows)
