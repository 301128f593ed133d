"""A run whose networks and losses are in a user's own file: sweep, resume, report, export."""

import json

import numpy as np
import pytest

from kdjax import cli
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.commands import overrides
from kdjax.experiment.run import train as running
from kdjax.models import user_code
from kdjax.models.io import export
from tests.faults.commands import base, experiment, refused, train
from tests.train.test_resume import Killed, ending, interrupted, kill

CODE = """
from flax import linen as nn
from flax import nnx

from kdjax.distill.terms import Scalar, TermSpec

class Linen(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1))

class Nnx(nnx.Module):
    def __init__(self, num_classes, width, *, rngs):
        self.first = nnx.Linear(16, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.first(x.reshape(len(x), -1))))
        self.sow(nnx.Intermediate, "pooled", x)
        return self.last(self.dropout(x))

def squared(student, teacher, *, temperature=2.0):
    return ((student - teacher) ** 2).mean(-1) / temperature

def margin(logits, labels, *, width=1.0):
    return logits.max(-1) * width

def small_features(layer="pooled"):
    def loss_fn(student, teachers, batch, scalars):
        return (student.features[layer] ** 2).mean(-1)
    return TermSpec(loss_fn, {"decay": Scalar(1.0)}, teachers="none", layers=((layer, layer),))

def averaged(student, teacher):
    return ((student - teacher) ** 2).mean()

def odd(student, teacher, extra):
    return student

def weighted(student, teacher, *, weight=0.5):
    return weight * ((student - teacher) ** 2).sum(-1)
"""
TEMPERATURES = "roles.student.terms.*.temperature"


def config(folder, **changes):
    file = folder / "own.py"
    file.write_text(CODE)
    squared = {"loss": f"{file}:squared", "toward": "teacher"}
    terms = {"ce": {}, "squared": squared, "margin": {"loss": f"{file}:margin", "weight": 0.1}}
    terms["small"] = {"loss": f"{file}:small_features", "weight": 0.1}
    return base(
        roles__teacher={"model": {"name": f"{file}:Linen"}, "terms": {"ce": {}}},
        roles__student={"model": {"name": f"{file}:Nnx", "width": 4}, "terms": {"ce": {}}},
        variants={"alone": {}, "own": {"roles": {"student": {"terms": terms}}}},
        sweep={TEMPERATURES: (1.0, 3.0)},
        **changes,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    path = experiment(folder, config(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(train(path, folder / "run")) == 0
    return folder, json.loads((folder / "run" / "report.json").read_text())


def test_a_star_sweeps_the_terms_and_variants_that_have_the_scalar(trained):
    alone, own = trained[1]["variants"]
    assert [member["values"] for member in alone["members"]] == [{"seed": 0}]
    assert [member["values"][TEMPERATURES] for member in own["members"]] == [1.0, 3.0]
    student = own["roles"]["student"]
    assert student["loss"].startswith("ce + squared(teacher, T swept) + 0.1 margin + 0.1 small")
    assert student["model"].endswith("own.py:Nnx")
    assert student["parameters"] == 17 * 4 + 8 + 5 * 3
    losses = [m["results"]["test"]["student/nll"] for m in own["members"]]
    assert losses[0] != losses[1]


def test_stop_and_resume_is_exact(trained, tmp_path):
    folder = trained[0]
    run = build(config(folder))
    with pytest.raises(Killed):
        running.train(interrupted(run, 3, kill), tmp_path, print)
    running.train(build(config(folder)), tmp_path, print)
    assert ending(run, tmp_path) == ending(run, folder / "run")


def test_an_export_restores_the_network(trained):
    folder = trained[0]
    argv = ["export", f"--workdir={folder / 'run'}", "--role=student", "--variant=own"]
    assert cli.main([*argv, f"--out={folder / 'student'}"]) == 0
    assert (folder / "student" / "own.py").read_text() == CODE
    model, variables, metadata = export.restore(folder / "student")
    batch = {"image": np.ones((2, 4, 4, 1), np.float32)}
    assert model.apply(variables, batch, train=False)[0].logits.shape == (2, 3)
    assert set(variables.stats) == {"norm"}
    assert metadata["model"]["width"] == 4


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ({"loss": "FILE:averaged", "toward": "teacher"}, ("averaged returns ()", "[batch]")),
        ({"loss": "FILE:odd", "toward": "teacher"}, ("roles.student.terms.x.loss", "extra")),
        ({"loss": "FILE:weighted", "toward": "teacher"}, ("weighted", "rename the scalar")),
        ({"loss": "FILE:nothing"}, ("roles.student.terms.x.loss", "has no 'nothing'")),
        ({"loss": "squared"}, ("roles.student.terms.x.loss", "no Python path")),
        ({"loss": "FILE:CODE"}, ("roles.student.terms.x.loss", "has no 'CODE'")),
        (
            {"loss": "FILE:small_features", "layer": "deep"},
            ("student has no layer 'deep'", "pooled"),
        ),
    ],
)
def test_one_line_refuses_what_is_no_loss(term, words, tmp_path):
    settings = config(tmp_path)
    term = {k: v.replace("FILE", str(tmp_path / "own.py")) for k, v in term.items()}
    settings["variants"]["own"]["roles"]["student"]["terms"] = {"x": term}
    with pytest.raises(UserError) as error:
        build(settings)
    assert not [word for word in words if word not in str(error.value)], str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_without_features_is_named(tmp_path):
    settings = config(tmp_path)
    hint = {"feature_mse": {"toward": "teacher"}}
    settings["variants"]["own"]["roles"]["student"]["terms"] = hint
    with pytest.raises(UserError, match=r"teacher has no layer 'pooled'; it has none"):
        build(settings)


def test_a_star_that_names_nothing_is_refused(tmp_path):
    settings = config(tmp_path)
    settings["sweep"] = {"roles.*.terms.*.emphasis": (1.0,)}
    with pytest.raises(UserError, match=r"sweep\.roles.*emphasis is not a number that one program"):
        build(settings)


def test_a_missing_function_and_variants_on_the_command_line(tmp_path, capsys):
    settings = config(tmp_path)
    path = experiment(tmp_path, base())
    argv = train(path, tmp_path / "run")
    name = f"{tmp_path / 'own.py'}:Nothing"
    refused(capsys, [*argv, f"--config.roles.student.model.name={name}"], "has no 'Nothing'")
    name = f"{tmp_path / 'other.py'}:Net"
    refused(capsys, [*argv, f"--config.roles.student.model.name={name}"], "no file", "other.py")
    refused(capsys, [*argv, "--variants=own"], "--variants=own: no such variant")
    frozen = {"teacher": {"terms": {"ce": None}, "from_variant": "alone"}}
    settings["variants"]["own"]["roles"] |= frozen
    path = experiment(tmp_path, settings)
    user_code.load(f"{tmp_path / 'own.py'}:Linen")  # the line of the log comes only once
    refused(capsys, [*argv, "--variants=owns"], "did you mean own?", "there are alone, own")
    words = ("teacher of own starts from alone", "--variants=alone,own")
    refused(capsys, [*argv, "--variants=own"], *words)


def test_a_flag_sets_an_option_of_an_own_network(tmp_path):
    config(tmp_path)
    name, width = f"{tmp_path / 'own.py'}:Nnx", "--config.roles.student.model.width=4"
    flags = [f"--config.roles.student.model.name={name}", width]
    loaded = overrides.read(str(experiment(tmp_path, base())), flags)
    model = loaded.config["roles"]["student"]["model"]
    assert (model["name"], model["width"]) == (name, 4)


def test_some_variants_alone(trained, tmp_path, monkeypatch):
    folder, report = trained
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    argv = train(folder / "experiment.py", tmp_path / "run", "--variants=own")
    assert cli.main(argv) == 0
    (own,) = json.loads((tmp_path / "run" / "report.json").read_text())["variants"]
    assert own["members"] == report["variants"][1]["members"]
