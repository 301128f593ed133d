"""Bounds of real runs: constants that no pair of inputs beats, the invariant, what is refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import chains, cli, diagnostics, models
from kdjax.types import UserError
from tests.faults.commands import base, experiment, refused, train


def network(name, shape, seed=0, **options):
    """Random weights, with batch norms that have seen something."""
    model = models.build(name, num_classes=3, **options)
    batch = {"image": jnp.zeros((1, *shape))}
    found = jax.jit(model.init)(jax.random.key(seed), batch)
    rng = np.random.default_rng(seed)
    stats = jax.tree.map(lambda x: jnp.float32(rng.uniform(0.3, 2.0, np.shape(x))), found.stats)
    return model, found._replace(stats=stats)


def test_distances_by_hand():
    x, u = np.array([[0.0], [1.0]]), np.array([[2.0], [1.0]])
    same, other = np.array([0, 0]), np.array([0, 1])
    found = diagnostics.distances((x, same), (u, same), 10.0, 0)
    assert found["w1"] == pytest.approx(1.0)  # 0 -> 1 and 1 -> 2, or 0 -> 2
    assert found["sliced"] <= found["w1"]
    # one label must change: 10 / 2
    assert diagnostics.distances((x, same), (u, other), 10.0, 0)["w1"] == pytest.approx(6.0)
    with pytest.raises(UserError, match="not finite"):
        diagnostics.distances((x * np.nan, same), (u, same), 1.0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_invariant_holds_for_random_networks(seed):
    rng = np.random.default_rng(seed)
    model, variables = network("mlp", (4, 4, 1), seed, hidden=(6,))
    stages = chains.chain({"name": "mlp"}, variables, (4, 4, 1))
    seen, labels = {}, {}
    for split, shift in (("train", 0.0), ("test", 1.5)):
        images = jnp.float32(rng.normal(size=(30, 4, 4, 1)) + shift)
        outputs, _ = model.apply(variables, {"image": images}, train=False)
        tree = {"input": images, **outputs.features, "logits": outputs.logits}
        seen[split] = {k: np.asarray(v, np.float64).reshape(30, -1) for k, v in tree.items()}
        labels[split] = rng.integers(0, 3, 30) if shift else np.argmax(seen[split]["logits"], 1)
    both = np.concatenate([seen[s]["logits"] for s in seen])
    cost = np.ptp(both, axis=1).max() / diagnostics.RHO
    losses = {s: diagnostics._cross_entropy(seen[s]["logits"], labels[s]) for s in seen}
    gap = abs(losses["test"].mean() - losses["train"].mean())
    assert gap > 0.1
    for stage, tail in zip(stages, chains.tails(stages), strict=True):
        pair = [(seen[s][stage.name], labels[s]) for s in ("train", "test")]
        w1 = diagnostics.distances(pair[0], pair[1], cost, 0)["w1"]
        assert gap <= diagnostics.RHO * max(1, tail) * w1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A student cnn beside a teacher mlp, two seeds."""
    folder = tmp_path_factory.mktemp("bounds")
    said = base(
        num_steps=6,
        roles__student__model={"name": "cnn", "widths": (4, 6)},
        sweep={"seed": (0, 1)},
    )
    config = experiment(folder, said)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(config, folder / "run")) == 0
    return folder / "run"


def test_a_run_is_diagnosed_from_the_command_line(trained, capsys):
    argv = ["bounds", f"--workdir={trained}", "--samples=24", "--members=all"]
    assert cli.main(argv) == 0
    table = capsys.readouterr().out
    found = json.loads((trained / "bounds.json").read_text())["networks"]
    assert [(n["role"], n["member"]) for n in found] == [
        (role, member) for role in ("teacher", "student") for member in (0, 1)
    ]
    for told in found:
        assert told["held"]
        names = [layer["name"] for layer in told["layers"]]
        assert (names[0], names[-1]) == ("input", "logits")
        best = min(told["layers"], key=lambda layer: layer["bound"])
        assert best["name"] == told["funnel"]
        for layer in told["layers"]:
            assert layer["sliced"] <= layer["w1"] * (1 + 1e-6)
            assert abs(told["gap"]) <= layer["bound"]
    assert "funnel" in table
    assert "held" in table
    assert (trained / "bounds.svg").read_text().startswith("<svg")
    assert cli.main(["bounds", f"--workdir={trained}", "--samples=24", "--layers=logits"]) == 0
    found = json.loads((trained / "bounds.json").read_text())["networks"]
    assert [[layer["name"] for layer in told["layers"]] for told in found] == [["logits"]] * 2


def test_what_is_wrong_is_said_in_one_line(trained, tmp_path, capsys):
    there = f"--workdir={trained}"
    refused(capsys, ["bounds", there, "--layers=middle"], "no layer 'middle'", "input, ")
    refused(capsys, ["bounds", there, "--samples=1"], "--samples=1", "at least 2")
    refused(capsys, ["bounds", f"--workdir={tmp_path / 'none'}"], "none")


def test_adapters_and_class_means_are_no_part_of_the_network(tmp_path, monkeypatch):
    """What terms add to a student is not there when its bounds are measured."""
    term = {"toward": "teacher", "own_layer": "wide"}
    said = base(
        num_steps=2,
        roles__student__terms={"ce": {}, "norm_direction": term},
        roles__student__adapters={"wide": {"kind": "linear", "layer": "pooled", "width": 8}},
        variants={
            "both": {},
            "nd": {"roles.teacher": {"terms": {"ce": None}, "from_variant": "both"}},
        },
    )
    said["variants"]["both"] = {"roles.student.terms": {"norm_direction": None}}
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    assert cli.main(train(experiment(tmp_path, said), tmp_path / "run")) == 0
    assert cli.main(["bounds", f"--workdir={tmp_path / 'run'}", "--samples=12"]) == 0
    found = json.loads((tmp_path / "run" / "bounds.json").read_text())["networks"]
    assert [(n["variant"], n["role"]) for n in found] == [
        ("both", "teacher"),
        ("both", "student"),
        ("nd", "student"),
    ]
    for told in found:
        assert [layer["name"] for layer in told["layers"]] == [
            "input",
            "hidden0",
            "pooled",
            "logits",
        ]
