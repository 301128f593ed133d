"""Does a bound track the loss gap over many trained students, and what else does?

Takes what `diagnose.diagnose` says of every student of a sweep. Students of one setting (a
variant with its swept values) differ by their seed; see `correlation` for the intervals.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.bounds.studies.correlation import Correlation, spearman, spearman_by_setting
from kdjax.bounds.studies.results import Line, Panel, Sheet, Study
from kdjax.types import UserError

__all__ = ["tracking"]

Network = Mapping[str, Any]
LEAST = 30  # students below which a correlation is not worth its digits


def tracking(
    networks: Sequence[Network],
    chosen: Mapping[str, Sequence[int]],
    *,
    role: str = "student",
    draws: int = 2000,
    seed: int = 0,
    least: int = LEAST,
) -> Study:
    """Compare bounds and gaps, by method and over all students.

    Args:
        networks: dicts with "variant", "role", "member", "values", "gap", "losses", "label_cost",
            "layers" (input first, logits last), "funnel" and "held".
        chosen: variant -> members that the validation split chose, one a seed; the first variant
            is the baseline.
        role: whose networks.
        draws: bootstrap draws of settings.
        seed: of these draws.
        least: fewer students are refused.

    Returns:
        A Study; `broken` names students whose gap exceeds their bound.

    Raises:
        UserError: too few students or settings.
    """
    own = [n for n in networks if n["role"] == role and _finite(n)]
    if len(own) < least:
        raise UserError(f"{len(own)} finite networks of {role}; a correlation needs {least}")
    settings = [_setting(network) for network in own]
    gaps = [network["gap"] for network in own]
    columns = _candidates(own)
    found = spearman_by_setting(columns, gaps, settings, draws=draws, seed=seed)
    left = {"bound given the range": columns["bound at the funnel"]}
    scale = columns["range of the logits"]
    found |= spearman_by_setting(left, gaps, settings, draws=draws, seed=seed, given=scale)
    methods = list(dict.fromkeys(network["variant"] for network in own))
    panels = (
        _cloud(own, methods, "bound", "bound at the funnel, nats", _bound),
        _cloud(own, methods, "range of the logits", "range, nats", lambda n: _range(n)),
        _levels(own, methods, chosen),
        _coefficients(found),
    )
    sheets = (
        _by_method(own, methods, chosen),
        _funnels(own, methods),
        _correlations(found, len(own), len(set(settings))),
        _inside(own, settings, methods),
    )
    broken = [f"{n['variant']} #{n['member']}" for n in own if not n["held"]]
    title = f"Bounds of {len(own)} {role}s in {len(set(settings))} settings"
    return Study(title, panels, sheets, broken)


def _finite(network: Network) -> bool:
    layers = [layer[key] for layer in network["layers"] for key in ("w1", "bound", "tail")]
    return bool(np.isfinite([network["gap"], *layers]).all())


def _setting(network: Network) -> Hashable:
    values = {key: value for key, value in network["values"].items() if key != "seed"}
    return network["variant"], tuple(sorted(values.items()))


def _bound(network: Network) -> float:
    return min(layer["bound"] for layer in network["layers"])


def _range(network: Network) -> float:
    """Largest range of the logits of an example: what moving a label may cost in nats."""
    return network["label_cost"] * math.sqrt(2)


def _candidates(own: Sequence[Network]) -> dict[str, list[float]]:
    """What may track the gap: bounds, their parts, and what has nothing to do with test data."""
    first, last = (lambda n: n["layers"][0]), (lambda n: n["layers"][-1])
    columns = {
        "bound at the funnel": _bound,
        "bound at the input": lambda n: first(n)["bound"],
        "W1 at the logits": lambda n: last(n)["w1"],
        "the same, shuffled": lambda n: last(n)["baseline"],
        "their ratio": lambda n: last(n)["w1"] / last(n)["baseline"],
        "sliced W1 at the logits": lambda n: last(n)["sliced"],
        "Lipschitz constant": lambda n: first(n)["tail"],
        "range of the logits": _range,
        "training loss, negated": lambda n: -n["losses"]["train"],
    }
    return {name: [float(get(n)) for n in own] for name, get in columns.items()}


def _cloud(own: Sequence[Network], methods: Sequence[str], what: str, x: str, get: Any) -> Panel:
    lines = []
    for method in methods:
        mine = [n for n in own if n["variant"] == method]
        values = [get(n) for n in mine]
        kind = "upper bound" if get is _bound else "exact"
        lines.append(Line(method, kind, values, [n["gap"] for n in mine], joined=False))
    return Panel(f"loss gap and {what}", x, "loss gap, nats", lines, "x")


def _levels(
    own: Sequence[Network], methods: Sequence[str], chosen: Mapping[str, Sequence[int]]
) -> Panel:
    """Mean bound by layer of the chosen students of each method."""
    lines = []
    names: list[str] = []
    for method in methods:
        mine = _of(own, method, chosen)
        names = [layer["name"] for layer in mine[0]["layers"]]
        means = [
            float(np.mean([n["layers"][at]["bound"] for n in mine])) for at in range(len(names))
        ]
        lines.append(Line(method, "upper bound", range(len(names)), means))
    return Panel("bound by layer, chosen settings", "layer", "bound, nats", lines, "y", names)


def _of(own: Sequence[Network], method: str, chosen: Mapping[str, Sequence[int]]) -> list[Network]:
    wanted = set(chosen.get(method, ()))
    found = [n for n in own if n["variant"] == method and n["member"] in wanted]
    if not found:
        raise UserError(f"no finite network of {method} among the chosen members {sorted(wanted)}")
    return found


def _coefficients(found: Mapping[str, Correlation]) -> Panel:
    """Three points a candidate, with half widths of the intervals as errors."""
    lines = []
    for place, which in enumerate(("overall", "between", "within")):
        parts = [getattr(correlation, which) for correlation in found.values()]
        lines.append(
            Line(
                f"{which} settings" if which != "overall" else "overall",
                "estimate",
                [at + 0.2 * (place - 1) for at in range(len(parts))],  # side by side
                [part[0] for part in parts],
                [(part[2] - part[1]) / 2 for part in parts],
                joined=False,
            )
        )
    return Panel("rank correlation with the gap", "", "Spearman", lines, "", list(found))


def _spread(values: Sequence[float]) -> str:
    sd = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):.4g} ± {sd:.2g}"


def _by_method(
    own: Sequence[Network], methods: Sequence[str], chosen: Mapping[str, Sequence[int]]
) -> Sheet:
    """Chosen students: gaps, bounds, and paired by seed the ratio of the bound to the first's."""
    base = {n["values"]["seed"]: n for n in _of(own, methods[0], chosen)}
    all_base = {_values(n): n for n in own if n["variant"] == methods[0]}
    rows = []
    for method in methods:
        mine = _of(own, method, chosen)
        pairs = [(n, base[n["values"]["seed"]]) for n in mine if n["values"]["seed"] in base]
        rows.append(
            (
                method,
                ", ".join(f"{v:g}" for k, v in mine[0]["values"].items() if k != "seed"),
                len(mine),
                _spread([n["losses"]["train"] for n in mine]),
                _spread([n["gap"] for n in mine]),
                _spread([_bound(n) for n in mine]),
                _spread([_bound(n) / n["gap"] for n in mine]),
                _spread([_range(n) for n in mine]),
                _spread([_bound(a) / _bound(b) for a, b in pairs]),
                _spread([a["gap"] / b["gap"] for a, b in pairs]),
                _at_equal_values(own, method, all_base),
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
        f"bound over {methods[0]}'s",
        f"gap over {methods[0]}'s",
        "bounds' ratio at equal values",
    )
    notes = (
        "Mean ± sd over seeds at the values that validation chose; ratios paired by seed. Last "
        "column: at equal swept values and seeds, geometric mean over all of them (least and "
        "largest).",
    )
    return Sheet("By method", header, rows, words=2, notes=notes)


def _values(network: Network) -> Hashable:
    return tuple(sorted(network["values"].items()))


def _at_equal_values(own: Sequence[Network], method: str, base: Mapping[Hashable, Network]) -> str:
    logs = [
        math.log(_bound(n) / _bound(base[_values(n)]))
        for n in own
        if n["variant"] == method and _values(n) in base
    ]
    if not logs:
        return ""
    mean, least, most = (math.exp(v) for v in (sum(logs) / len(logs), min(logs), max(logs)))
    return f"{mean:.2f} ({least:.2f} to {most:.2f})"


def _funnels(own: Sequence[Network], methods: Sequence[str]) -> Sheet:
    """How many students have their funnel where; and where the sliced lower value would put it."""
    names = list(dict.fromkeys(layer["name"] for n in own for layer in n["layers"]))
    rows = []
    for method in methods:
        mine = [n for n in own if n["variant"] == method]
        exact = Counter(n["funnel"] for n in mine)
        sliced = Counter(
            min(n["layers"], key=lambda x: x["sliced"] * max(1.0, x["tail"]))["name"] for n in mine
        )
        rows.append((method, len(mine), *(exact[x] for x in names), *(sliced[x] for x in names)))
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
    return Sheet("Funnel layer", header, rows, notes=notes)


def _correlations(found: Mapping[str, Correlation], students: int, settings: int) -> Sheet:
    cell = lambda part: f"{part[0]:.2f} [{part[1]:.2f}, {part[2]:.2f}]"  # noqa: E731
    rows = [(name, *(cell(part) for part in correlation)) for name, correlation in found.items()]
    header = ("against the loss gap", "overall", "between settings", "within settings")
    notes = (
        f"Spearman over {students} students in {settings} settings (method and swept values). 95 % "
        "intervals draw whole settings: students of one differ by the seed alone. All share one "
        "split of the data. Shuffled: both samples mixed and divided anew, so that training and "
        "test examples cannot be told apart. Training loss: no test example enters. Last row: "
        "partial, the range of the logits held.",
    )
    return Sheet("What tracks the gap", header, rows, notes=notes)


def _inside(own: Sequence[Network], settings: Sequence[Hashable], methods: Sequence[str]) -> Sheet:
    """Spearman of bound and gap in the students of each method alone."""
    rows = []
    for method in methods:
        at = [i for i, network in enumerate(own) if network["variant"] == method]
        bound, gap = ([get(own[i]) for i in at] for get in (_bound, lambda n: n["gap"]))
        label = [_range(own[i]) for i in at]
        count = len({settings[i] for i in at})
        rows.append((method, len(at), count, spearman(bound, gap), spearman(label, gap)))
    header = ("method", "students", "settings", "bound and gap", "range of logits and gap")
    return Sheet("Spearman inside each method", header, rows)
