"""Bounds of real runs: distances, the invariant, the command, errors."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from kdjax import cli, models
from kdjax.bounds import layer_distances as distances
from kdjax.bounds.layer_distances import layer_distances
from kdjax.errors import UserError
from kdjax.experiment.commands import diagnose
from kdjax.models import certificates
from tests.faults.commands import base, experiment, refused, train


def random_network(name, shape, seed=0, **options):
    """Return random weights, with random statistics of batch norms."""
    model = models.build(name, num_classes=3, **options)
    batch = {"image": jnp.zeros((1, *shape))}
    variables = jax.jit(model.init)(jax.random.key(seed), batch)
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda x: jnp.float32(rng.uniform(0.3, 2.0, np.shape(x))), variables.stats)
    return model, variables._replace(stats=stats)


def measure(x, y, labels, cost):
    """Return the distances of one layer."""
    return layer_distances({"": x}, {"": y}, labels, cost, 0)[""]


def test_distances_by_hand():
    x, u = np.array([[0.0], [1.0]]), np.array([[2.0], [1.0]])
    same, other = np.array([0, 0]), np.array([0, 1])
    layer = measure(x, u, (same, same), 10.0)
    assert layer.w1 == pytest.approx(1.0)  # 0 -> 1 and 1 -> 2, or 0 -> 2
    assert layer.sliced <= layer.w1 <= layer.entropic <= 1.1
    # one label must change: 10 / 2
    assert measure(x, u, (same, other), 10.0).w1 == pytest.approx(6.0)
    with pytest.raises(UserError, match="not finite"):
        measure(x * np.nan, u, (same, same), 1.0)


def test_wide_and_narrow_layers_are_measured_alike(monkeypatch):
    rng = np.random.default_rng(0)
    layers = [{"a": rng.normal(size=(9, 5)) + 3, "b": rng.normal(size=(9, 2))} for _ in range(2)]
    labels = rng.integers(0, 3, (2, 9))
    slow = layer_distances(layers[0], layers[1], (labels[0], labels[1]), 0.7, 1)
    monkeypatch.setattr(distances, "NARROW", 0)
    fast = layer_distances(layers[0], layers[1], (labels[0], labels[1]), 0.7, 1)
    for name, row in slow.items():
        cost = cdist(layers[0][name], layers[1][name]) + 0.7 * (labels[0][:, None] != labels[1])
        assert row.w1 == pytest.approx(cost[linear_sum_assignment(cost)].mean(), rel=1e-12)
        assert row.sliced <= row.w1 <= row.entropic <= 1.3 * row.w1
        assert fast[name] == pytest.approx(row, rel=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_invariant_holds_for_random_networks(seed):
    rng = np.random.default_rng(seed)
    model, variables = random_network("mlp", (4, 4, 1), seed, hidden=(6,))
    stages = certificates.layer_constants("mlp", variables, (4, 4, 1))
    seen, labels = {}, {}
    for split, shift in (("train", 0.0), ("test", 1.5)):
        images = jnp.float32(rng.normal(size=(30, 4, 4, 1)) + shift)
        outputs, _ = model.apply(variables, {"image": images}, train=False)
        tree = {"input": images, **outputs.features, "logits": outputs.logits}
        seen[split] = {k: np.asarray(v, np.float64).reshape(30, -1) for k, v in tree.items()}
        labels[split] = rng.integers(0, 3, 30) if shift else np.argmax(seen[split]["logits"], 1)
    both = np.concatenate([seen[s]["logits"] for s in seen])
    cost = np.ptp(both, axis=1).max() / diagnose.RHO
    losses = {s: diagnose._cross_entropy(seen[s]["logits"], labels[s]) for s in seen}
    gap = abs(losses["test"].mean() - losses["train"].mean())
    assert gap > 0.1
    for stage, tail in zip(stages, certificates.downstream_constants(stages), strict=True):
        layer = [seen[split][stage.name] for split in ("train", "test")]
        w1 = measure(*layer, (labels["train"], labels["test"]), cost).w1
        assert gap <= diagnose.RHO * max(1, tail) * w1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a cnn as student and an mlp as teacher, two seeds."""
    folder = tmp_path_factory.mktemp("bounds")
    config = base(
        num_steps=6,
        roles__student__model={"name": "cnn", "widths": (4, 6)},
        sweep={"seed": (0, 1)},
    )
    file = experiment(folder, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(file, folder / "run")) == 0
    return folder / "run"


def test_a_run_is_diagnosed_from_the_command_line(trained, capsys):
    argv = ["bounds", f"--workdir={trained}", "--samples=24", "--members=all"]
    assert cli.main(argv) == 0
    table = capsys.readouterr().out
    networks = json.loads((trained / "bounds.json").read_text())["networks"]
    assert [(n["role"], n["member"]) for n in networks] == [
        (role, member) for role in ("teacher", "student") for member in (0, 1)
    ]
    for network in networks:
        assert network["held"]
        names = [layer["name"] for layer in network["layers"]]
        assert (names[0], names[-1]) == ("input", "logits")
        best = min(network["layers"], key=lambda layer: layer["bound"])
        assert best["name"] == network["funnel"]
        for layer in network["layers"]:
            assert layer["sliced"] <= layer["w1"] * (1 + 1e-6)
            assert layer["w1"] <= layer["entropic"] * (1 + 1e-6)
            assert abs(network["gap"]) <= layer["bound"]
    assert "funnel" in table
    assert "held for all 4 networks" in table
    assert (trained / "bounds.svg").read_text().startswith("<svg")
    for out, text in (("page.html", "gap &lt;= bound"), ("tables.md", "W1 of (representation")):
        assert cli.main(["report", str(trained), f"--out={trained / out}"]) == 0
        assert text in (trained / out).read_text()
    assert (trained / "page.html").read_text().count("bounds by layer") == 2  # table and figure


def test_a_network_from_a_file_is_diagnosed_with_the_student(trained, tmp_path, monkeypatch):
    """The network is diagnosed once for all variants, at selected layers, in another folder."""
    argv = ["export", f"--workdir={trained}", "--role=teacher", f"--out={tmp_path / 'teacher'}"]
    assert cli.main(argv) == 0
    config = base(
        num_steps=2,
        roles__teacher__terms={},
        roles__teacher__checkpoint=str(tmp_path / "teacher"),
        roles__student__model={"name": "cnn", "widths": (4,)},
        variants={"a": {}, "b": {"roles.student.optimizer.learning_rate": 0.0}},
    )
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    assert cli.main(train(experiment(tmp_path, config), tmp_path / "run")) == 0
    argv = ["bounds", f"--workdir={tmp_path / 'run'}", "--samples=12", "--layers=pooled,logits"]
    assert cli.main([*argv, f"--out={tmp_path / 'out'}"]) == 0
    assert not (tmp_path / "run" / "bounds.json").exists()
    networks = json.loads((tmp_path / "out" / "bounds.json").read_text())["networks"]
    roles = [("a", "teacher"), ("a", "student"), ("b", "student")]
    assert [(n["variant"], n["role"]) for n in networks] == roles
    for network in networks:
        assert network["held"]
        assert [layer["name"] for layer in network["layers"]] == ["pooled", "logits"]


def test_a_damaged_file_of_bounds_is_named(trained, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("kdjax.report.records.read_report", lambda workdir: {})
    for name in ("bounds", "report"):
        (tmp_path / f"{name}.json").write_text("{}")
    refused(capsys, ["report", tmp_path, f"--out={tmp_path / 'x.html'}"], "bounds.json is damaged")


def test_errors_are_one_line(trained, tmp_path, capsys):
    workdir = f"--workdir={trained}"
    refused(capsys, ["bounds", workdir, "--layers=middle"], "no layer 'middle'", "input, ")
    refused(
        capsys,
        ["bounds", workdir, f"--out={trained / 'config.json'}"],
        "bounds.json: cannot be written",
    )
    refused(capsys, ["bounds", workdir, "--samples=1"], "--samples=1", "at least 2")
    refused(capsys, ["bounds", f"--workdir={tmp_path / 'none'}"], "none")


def test_bounds_exclude_adapters_and_class_means(tmp_path, monkeypatch):
    """The bounds of a student are those of its network without adapters and class means."""
    term = {"toward": "teacher", "own_layer": "wide"}
    config = base(
        num_steps=2,
        roles__student__terms={"ce": {}, "norm_direction": term},
        roles__student__adapters={"wide": {"kind": "linear", "layer": "pooled", "width": 8}},
        variants={
            "both": {},
            "nd": {"roles.teacher": {"terms": {"ce": None}, "from_variant": "both"}},
        },
    )
    config["variants"]["both"] = {"roles.student.terms": {"norm_direction": None}}
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    assert cli.main(train(experiment(tmp_path, config), tmp_path / "run")) == 0
    assert cli.main(["bounds", f"--workdir={tmp_path / 'run'}", "--samples=12"]) == 0
    networks = json.loads((tmp_path / "run" / "bounds.json").read_text())["networks"]
    assert [(n["variant"], n["role"]) for n in networks] == [
        ("both", "teacher"),
        ("both", "student"),
        ("nd", "student"),
    ]
    for network in networks:
        assert [layer["name"] for layer in network["layers"]] == [
            "input",
            "hidden0",
            "pooled",
            "logits",
        ]


def test_diverged_members_are_excluded(trained, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    (done,) = copy.rglob("done.json")
    outcome = json.loads(done.read_text())
    first, original = outcome["members"][0], dict(outcome["members"][0])
    first["diverged"] = "step 3: student/loss is not finite"
    done.write_text(json.dumps(outcome))
    argv = ["bounds", f"--workdir={copy}", "--samples=12", "--members=all", "--layers=logits"]
    assert cli.main(argv) == 0
    assert "member 0 diverged and is omitted" in capsys.readouterr().err
    networks = json.loads((copy / "bounds.json").read_text())["networks"]
    assert [(n["role"], n["member"]) for n in networks] == [("teacher", 1), ("student", 1)]
    outcome["members"][0] = original
    outcome["members"][1]["dropped"] = 2  # by halving
    done.write_text(json.dumps(outcome))
    assert cli.main(argv) == 0
    assert "member 1 was dropped at step 2 and is omitted" in capsys.readouterr().err
