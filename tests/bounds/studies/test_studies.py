"""Studies against simulation, enumeration and scipy, and their errors."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from kdjax import cli
from kdjax.bounds.studies import STUDIES, as_json, network_bounds, tracking
from kdjax.bounds.studies.contraction import coefficient, layout
from kdjax.bounds.studies.correlation import spearman, spearman_by_setting
from kdjax.bounds.studies.gaussian import _ramp, gaps
from kdjax.errors import UserError
from kdjax.experiment.commands import study
from kdjax.report import study_figures as drawing
from tests.faults.commands import base, experiment, refused

SEEDS = st.integers(0, 2**32 - 1)


def compute(name, **arguments):
    spec = STUDIES[name]
    return spec.compute(spec.settings(**arguments))


def sheet(result, title):
    """Return the rows of a table as dicts."""
    table = next(s for s in result.sheets if s.title == title)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_gaps_against_simulated_data_sets():
    """The reference draws data sets, their training losses and fresh points."""
    rng = np.random.default_rng(0)
    n, deviation, sets, fresh = 6, 1.3, 20_000, 20
    mean, product = np.array([0.8, 0.0, -0.3]), rng.normal(size=(2, 3))
    labels = rng.choice([-1.0, 1.0], size=(sets, n + fresh))
    x = labels[..., None] * mean + deviation * rng.normal(size=(sets, n + fresh, 3))
    estimate = (labels[:, :n, None] * x[:, :n]).mean(axis=1)
    head = estimate @ product.T
    head /= np.linalg.norm(head, axis=1, keepdims=True)
    margin = labels * np.einsum("sk,sik->si", head, x @ product.T)
    actual = gaps(product, mean, deviation, n, 20_000, rng)
    for loss, computed, error in (
        (margin < 0, actual.zero_one, actual.zero_one_error),
        (np.clip(1 - margin, 0, 1), actual.ramp, actual.ramp_error),
    ):
        each = loss[:, n:].mean(axis=1) - loss[:, :n].mean(axis=1)
        spread = math.hypot(each.std() / sets**0.5, error)
        assert abs(each.mean() - computed) < 4 * spread
        assert computed > 20 * spread  # otherwise the comparison is empty


def test_ramp_loss_of_a_normal_margin():
    for mean, deviation in ((0.3, 0.5), (-2.0, 1.5), (3.0, 1.2)):
        law = stats.norm(mean, deviation)
        slope = integrate.quad(lambda z, law=law: (1 - z) * law.pdf(z), 0, 1)[0]
        actual = _ramp(np.array([mean]), np.array([deviation]))
        assert actual == pytest.approx(law.cdf(0) + slope, abs=1e-10)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=SEEDS, n=st.integers(2, 30), signal=st.floats(0.1, 3), deviation=st.floats(0.2, 3))
def test_gaussian_bounds_hold_and_match_closed_forms(seed, n, signal, deviation):
    rng = np.random.default_rng(seed)
    widths = [int(w) for w in rng.integers(1, 6, 4)]
    result = compute(
        "gaussian",
        seed=seed,
        widths=widths,
        size=n,
        signal=signal,
        deviation=deviation,
        sizes=[2, n],
        ranks=[1, widths[0]],
        gains=[0.3, 1.0, 3.0],
        draws=1500,
    )
    assert not result.broken
    rows = {row["setting"]: row for row in sheet(result, "By setting")}
    for rank in {1, widths[0]}:
        row = rows[f"rank = {rank}"]  # an orthonormal projection: norm sqrt(rank), tail 1
        assert row["KL bound"] == pytest.approx(0.5 * math.sqrt(rank * math.log(n / (n - 1))))
        transport = deviation * math.sqrt(rank * 2 * (1 - math.sqrt(1 - 1 / n)))
        assert row["Wasserstein bound (ramp)"] == pytest.approx(transport)
    scaled = [rows[f"factor = {g:g}"] for g in (0.3, 1.0)]
    assert scaled[0]["KL bound"] == scaled[1]["KL bound"]
    bounds = [row["Wasserstein bound (ramp)"] for row in scaled]
    assert bounds[0] == pytest.approx(bounds[1] * 0.3 ** (len(widths) - 1))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(depth=st.integers(1, 12), inputs=st.integers(1, 9), more=st.integers(0, 300))
def test_layouts_use_all_weights(depth, inputs, more):
    weights = inputs + depth + more
    net = layout(depth, weights, inputs)

    def count(hidden):
        return sum(a * b for a, b in itertools.pairwise([inputs, *hidden, 1]))

    assert len(net.hidden) == depth
    assert net.weights == count(net.hidden) <= weights
    wider = list(net.hidden)
    wider[wider.index(min(wider))] += 1
    assert count(wider) > weights
    assert max(net.hidden) - min(net.hidden) <= 1


def test_coefficients_are_products_over_layers():
    assert coefficient("dropout", (2, 3), 4, 0.5, 1.0) == pytest.approx((3 / 4) * (7 / 8))
    connect = (1 - 0.5**8) * (1 - 0.5**6)
    assert coefficient("DropConnect", (2, 3), 4, 0.5, 1.0) == pytest.approx(connect)
    each = [
        min(1 - 2 * stats.norm.sf(d / 2 / 2), 1 - math.exp(-(d**2) / 4 / 4))
        for d in (2 * math.sqrt(2), 2 * math.sqrt(3))
    ]
    assert coefficient("Gaussian noise", (2, 3), 4, 0.5, 2.0) == pytest.approx(math.prod(each))


@pytest.mark.parametrize("depth", [1, 5])
def test_contraction_at_equal_size(depth):
    arguments = {"weights": 60, "inputs": 3, "depths": [depth], "widths": [1, 2], "noise": 1.0}
    arguments |= {"levels": 2, "size": 50, "label_information": 0.01, "drop": 0.4}
    arguments |= {"tiny": [[2, 1, 1], [1, 1, 1, 1]], "tiny_size": 2}
    arguments |= {"tiny_inverse_temperature": 3.0}
    result = compute("contraction", **arguments)
    assert not result.broken
    (row,) = sheet(result, "Equal size")
    hidden = layout(depth, 60, 3).hidden
    eta = math.prod(1 - 0.4**w for w in hidden)
    log_count = row["weights"] * math.log(2)
    bound = 0.5 * math.sqrt(2 / 50 * (50 * 0.01 + eta * log_count))
    assert row["bound, dropout"] == pytest.approx(bound)
    assert row["bound, dropout"] <= row["bound, no noise"]
    with pytest.raises(UserError, match="all must have equally many"):
        compute("contraction", **{**arguments, "tiny": [[2, 1], [2, 2, 1]]})
    with pytest.raises(UserError, match="5 hidden layers need 8 or more, got 4"):
        layout(5, 4, 3)


def test_gibbs_against_manual_enumeration():
    """One input bit, one weight of two signs, n = 1: eight cases by hand."""
    a, noise = 3.0, 0.1
    result = compute(
        "gibbs",
        widths=[1, 1],
        sizes=[1],
        size=1,
        temperatures=[a],
        inverse_temperature=a,
        label_noise=noise,
        drop=0.0,
    )
    assert not result.broken
    right, wrong = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(a))
    # the weight that fits the one example has probability `right`; +1 is the rule
    plus = (1 - noise) * right + noise * wrong
    population = plus * noise + (1 - plus) * (1 - noise)
    for row in sheet(result, "By n and a"):
        assert row["|gen|"] == pytest.approx(population - wrong)
        assert row["Gibbs identity"] == pytest.approx(row["|gen|"])
        assert row["Gibbs bound"] == pytest.approx(2 * 0.25 * a)


def by_setting(x, y, names, draws=9, **options):
    return spearman_by_setting({"x": x}, y, names, draws=draws, seed=0, **options)["x"]


def test_correlations_against_scipy():
    rng = np.random.default_rng(3)
    x, y, z = rng.integers(0, 9, (3, 40)).astype(float)  # with ties
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    names = np.repeat(np.arange(8), 5)
    actual = by_setting(x, y, list(names), draws=50)
    assert actual.overall[0] == pytest.approx(stats.spearmanr(x, y).statistic)
    means = [[v[names == k].mean() for k in range(8)] for v in (x, y)]
    assert actual.between[0] == pytest.approx(stats.spearmanr(*means).statistic)
    partial = by_setting(x, y, list(names), draws=50, control=z).overall[0]
    ranks = [stats.rankdata(v) for v in (x, y, z)]
    design = np.column_stack([np.ones(40), ranks[2]])
    left = [r - design @ np.linalg.lstsq(design, r, rcond=None)[0] for r in ranks[:2]]
    assert partial == pytest.approx(np.corrcoef(*left)[0, 1])
    for low, high in (actual.overall[1:], actual.between[1:], actual.within[1:]):
        assert -1 <= low < high <= 1


def test_correlations_within_and_between_settings_may_disagree():
    """Simpson's paradox: positive correlation across settings, negative within a setting."""
    at = np.repeat(np.arange(6.0), 5)
    inner = np.tile(np.arange(5.0), 6)
    actual = by_setting(10 * at + inner, 10 * at - inner, list(at), draws=200)
    assert actual.between[0] == pytest.approx(1)
    assert actual.within == pytest.approx((-1, -1, -1))
    assert actual.overall[0] > 0.9


def test_interval_resamples_settings():
    """Copies of a student do not change the interval, which resamples settings."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    once = by_setting(x, y, range(12), draws=400)
    copies = by_setting(
        np.repeat(x, 9), np.repeat(y, 9), list(np.repeat(np.arange(12), 9)), draws=400
    )
    assert copies.overall == pytest.approx(once.overall, abs=1e-9)
    with pytest.raises(UserError, match="three or more"):
        by_setting([1, 2, 3], [1, 2, 3], [0, 0, 1])
    with pytest.raises(UserError, match="finite"):
        by_setting([1, 2, math.nan], [1, 2, 3], [0, 1, 2])
    with pytest.raises(UserError, match="must be one"):
        by_setting([1, 2], [1, 2, 3], [0, 1, 2])


def students(count=6, seeds=5):
    """Return the diagnosis of two methods with `count` learning rates each."""
    rng = np.random.default_rng(0)
    networks = []
    for variant, rate, seed in itertools.product(("alone", "kd"), range(count), range(seeds)):
        last = 1.0 + rate + rng.uniform(0, 0.1)
        gap = 0.1 * (1 + rate) + rng.uniform(0, 0.05)
        layers = [
            {"name": name, "w1": last, "baseline": 2.0, "sliced": 0.1, "tail": tail}
            for name, tail in (("input", 3.0), ("logits", 1.0))
        ]
        layers = [{**layer, "bound": 2 * layer["tail"] * last} for layer in layers]
        member = {"variant": variant, "role": "student", "member": rate * seeds + seed}
        values = {"rate": float(rate), "seed": seed}
        numbers = {"gap": gap, "label_cost": last, "losses": {"train": 1 / last}, "held": True}
        record = {**member, "values": values, "layers": layers, "funnel": "logits", **numbers}
        networks.append(network_bounds(record))
    return networks


def test_tracking_of_synthetic_students():
    networks = students()
    chosen = {"alone": range(5), "kd": range(5, 10)}
    result = tracking(networks, chosen, draws=100)
    rows = {row["against the loss gap"]: row for row in sheet(result, "What tracks the gap")}
    mean = {}
    for network in networks:
        key = (network.variant, network.values["rate"])
        mean.setdefault(key, []).append((network.layers[1].bound, network.gap))
    by_hand = stats.spearmanr([np.mean(v, axis=0) for v in mean.values()]).statistic
    assert rows["bound at the funnel"]["between settings"].startswith(f"{by_hand:.2f} [")
    methods = sheet(result, "By method")
    assert [row["chosen values"] for row in methods] == ["0", "1"]
    ratio = np.mean([
        networks[35 + k].layers[1].bound / networks[k].layers[1].bound
        for k in range(5)
    ])  # fmt: skip
    assert methods[1]["bound over alone's"].startswith(f"{ratio:.4g} ±")
    of_kd = [np.mean([getattr(n, key) for n in networks[35:40]]) for key in ("bound", "gap")]
    assert methods[1]["bound / gap"] == f"{of_kd[0] / of_kd[1]:.4g}"
    assert [row["logits, exact"] for row in sheet(result, "Funnel layer")] == [30, 30]
    assert drawing.study_figure(as_json(result)).startswith("<svg")
    assert not result.broken
    violated = tracking([*networks[:-1], networks[-1]._replace(held=False)], chosen, draws=9)
    assert violated.broken == ["kd #29"]
    deep = [n._replace(layers=[n.layers[0], n.layers[0]._replace(name="hidden"), n.layers[1]])
            for n in networks[30:]]  # fmt: skip
    levels = next(
        panel
        for panel in tracking([*networks[:30], *deep], chosen, draws=9).panels
        if panel.title == "bound by layer, chosen settings"
    )
    assert levels.ticks == ["input", "hidden", "logits"]
    assert [list(line.x) for line in levels.lines] == [[0, 2], [0, 1, 2]]
    around_zero = [n._replace(gap=(-1) ** i * 1e-3) for i, n in enumerate(networks)]
    (row, _) = sheet(tracking(around_zero, chosen, draws=9), "By method")
    assert row["bound / gap"] == "-"
    diverged = networks[0]._replace(gap=math.nan)
    assert "59 students" in tracking([diverged, *networks[1:]], chosen, draws=9).title
    with pytest.raises(UserError, match="29 finite networks"):
        tracking(networks[:29], chosen)
    with pytest.raises(UserError, match="no finite network of kd"):
        tracking(networks, {"alone": range(5)}, draws=9)


def test_enumeration_from_the_command_line(tmp_path, capsys):
    arguments = ["study", "--config=experiments/bounds_laboratory.py", f"--out={tmp_path / 'out'}"]
    arguments += [
        "--config.widths=(2, 1, 1)",
        "--config.size=2",
        "--config.inverse_temperature=inf",
    ]
    assert cli.main(arguments) == 0
    table = capsys.readouterr().out
    assert "|gen|" in table
    assert "KL bound 2" in table
    actual = json.loads((tmp_path / "out" / "study.json").read_text())
    assert actual["config"]["widths"] == [2, 1, 1]
    assert actual["config"]["inverse_temperature"] is None  # JSON has no infinity
    assert "Gibbs bound" not in [row[0] for row in actual["sheets"][0]["rows"]]  # it is ERM
    assert (tmp_path / "out" / "figure.svg").read_text().startswith("<svg")
    assert "| quantity | must be |" in (tmp_path / "out" / "tables.md").read_text()


def test_students_from_the_command_line(tmp_path, capsys):
    """One program trains thirty students; the study compares their bounds with their gaps."""
    rates = {"roles.*.optimizer.learning_rate": (0.01, 0.05, 0.2), "seed": tuple(range(10))}
    config = experiment(tmp_path, base(num_steps=3, sweep=rates))
    assert cli.main(["study", f"--config={config}", f"--out={tmp_path / 'o'}", "--samples=10"]) == 0
    actual = json.loads((tmp_path / "o" / "study.json").read_text())
    assert actual["title"] == "Bounds of 30 students in 3 settings"
    assert (tmp_path / "o" / "run" / "metrics.jsonl").exists()
    table = capsys.readouterr().out
    assert "What tracks the gap" in table
    assert "[nan" not in table  # no intervals over three settings
    text = (tmp_path / "o" / "study.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    role = {"net": {**base()["roles"]["student"], "terms": {"ce": {}}}}
    other = experiment(tmp_path, base(num_steps=3, sweep=rates, roles=role))
    refused(capsys, ["study", f"--config={other}", f"--out={tmp_path / 'p'}"], "'student', which")


def test_errors_are_one_line(tmp_path, capsys):
    def of(**changes):
        arguments = {"study": "laboratory", "widths": (1, 1), "size": 1, "inverse_temperature": 1.0}
        arguments |= {"label_noise": 0.1, "drop": 0.0, "levels": (-1.0, 1.0), **changes}
        return experiment(tmp_path, {k: v for k, v in arguments.items() if v is not None})

    def wrong(config, *words, flags=()):
        argv = ["study", f"--config={config}", f"--out={tmp_path / 'out'}", *flags]
        return refused(capsys, argv, *words)

    wrong(of(study="labratory"), "'labratory'", "contraction, gaussian, gibbs, laboratory")
    wrong(of(width=3), "unknown key width", "did you mean widths?")
    wrong(of(levels=None), "needs levels")
    wrong(of(widths=3), "config.widths is 3", "a list that is not empty")
    wrong(of(widths=(1, 1.5)), "config.widths is 1.5", "a whole number")
    wrong(of(drop="a"), "config.drop is 'a'", "a number")
    wrong(of(drop=1.5), "drop: must be in [0, 1], got 1.5")
    wrong(of(), "unknown key --config.sized", flags=["--config.sized=2"])
    wrong(of(size=30), "pairs of data set and weights")
    wrong(tmp_path / "none.py", "no file")
    refused(
        capsys,
        ["train", f"--config={of()}", f"--workdir={tmp_path / 'run'}"],
        "python -m kdjax study",
    )
    wrong("experiments/bounds_gaussian.py", "size: must be", flags=["--config.size=1"])
    wrong("experiments/bounds_gaussian.py", "deviation: must be", flags=["--config.deviation=-1"])
    wrong(experiment(tmp_path, base()), "--samples=1", "at least 2", flags=["--samples=1"])
    (tmp_path / "file").write_text("")
    refused(capsys, ["study", f"--config={of()}", f"--out={tmp_path / 'file'}"], "cannot be")


def test_arguments_of_every_study_are_checked():
    for name in STUDIES:
        with pytest.raises(UserError, match=f"the study {name} needs"):
            study.compute({"study": name})
