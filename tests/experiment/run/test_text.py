"""Runs on text: BERT, T5 and GPT-Neo with SinKD; resume, export, devices, errors.

Tolerances are those of float32 sums in another order.
"""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy import special

import kdjax
from kdjax import cli
from kdjax.data.text import tokenize
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import export_run
from kdjax.experiment.run import train as running
from kdjax.experiment.run.export_run import ExportRequest
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.experiment.run.results import RunResults, load_results
from kdjax.models.io import export as model_export
from tests.data import tiny_text
from tests.faults.commands import experiment, refused, train
from tests.train.test_resume import Killed, ending, interrupted, kill

TASKS = {"bert": "glue/mrpc", "t5": "super_glue/boolq", "gpt_neo": "super_glue/copa"}
OWN = {"bert": "f1", "t5": "accuracy", "gpt_neo": "accuracy"}
# the other two run in `make test-long`; their networks and data have separate tests
KINDS = ["bert", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("t5", "gpt_neo"))]
kinds = pytest.mark.parametrize("kind", KINDS)


def network(kind, width):
    return {"name": kind, "num_layers": 1, "width": width, "num_heads": 2}


def sinkd(layer=""):
    return {
        "forward_kl": {"toward": "teacher", "weight": 0.5, "layer": layer},
        "sinkhorn": {"toward": "teacher", "weight": 0.01, "num_iters": 5, "layer": layer},
    }


def config(folder, kind="bert", task=None, **changes):
    """Return a config of four steps; the student also minimises KD and transport."""
    task = task or TASKS[kind]
    layer = "" if kind == "bert" else "token_logits"
    settings = {
        "num_steps": 4,
        "batch_size": 8,
        "eval_batch_size": 16,
        "devices": 1,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "tensorboard": False,
        "data": {
            "name": "text",
            "task": task,
            "path": str(tiny_text.write(folder, task)),
            "form": "classify" if kind == "bert" else "choices",
            "max_length": 24 if kind == "bert" else 48,
            "lengths": (),
            "vocabulary_size": 90,
            "validation": 0.2,
            "too_long": "truncate",
        },
        "roles": {
            "teacher": {"model": network(kind, 12), "terms": {"ce": {"layer": layer}}},
            "student": {"model": network(kind, 8), "terms": {"ce": {}, **sinkd(layer)}},
        },
        "sweep": {"seed": (0, 1)},
    }
    for role in settings["roles"].values():
        role["optimizer"] = {"name": "adamw", "learning_rate": 1e-2, "clip_norm": 1.0}
    return {**settings, **changes}


@pytest.fixture(scope="module")
def uninterrupted(request, tmp_path_factory):
    """Train each kind once, uninterrupted: (run, workdir, outcome, data folder)."""
    cache = {}

    def make(kind):
        if kind not in cache:
            folder = tmp_path_factory.mktemp(kind)
            run = build(config(folder / "data", kind))
            (outcome,) = running.train(run, folder / "run", print)
            cache[kind] = (run, folder / "run", outcome, folder / "data")
        return cache[kind]

    return make


@kinds
def test_a_run_logs_every_step_and_member(kind, uninterrupted):
    _, workdir, _, _ = uninterrupted(kind)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["split"] == "train"]
    assert [(line["step"], line["seed"]) for line in steps] == [
        (step, seed) for step in range(1, 5) for seed in (0, 1)
    ]
    for line in steps:
        for name in ("teacher/ce", "student/ce", "student/forward_kl", "student/sinkhorn"):
            assert line[f"{name}/raw"] > 0
        weighted = line["student/sinkhorn/weighted"]
        assert weighted == pytest.approx(0.01 * line["student/sinkhorn/raw"], rel=1e-6)
        # the error of a row of the plan is at most the mass of the row
        assert 0 <= line["student/sinkhorn/row_error"] < 1
        assert line["student/sinkhorn/iterations"] == 5
    assert steps[0]["student/ce/raw"] != steps[1]["student/ce/raw"]
    tested = [line for line in lines if line["split"] == "test"]
    assert [line["seed"] for line in tested] == [0, 1]
    for line in tested:
        for role in ("teacher", "student"):
            for name in (OWN[kind], "ece"):
                assert 0 <= line[f"{role}/{name}"] <= 1
            assert np.isfinite(line[f"{role}/nll"])


@kinds
def test_kill_and_resume_equals_an_uninterrupted_run(kind, uninterrupted, tmp_path):
    run, workdir, _, folder = uninterrupted(kind)
    with pytest.raises(Killed):
        running.train(interrupted(run, 3, kill), tmp_path, print)
    lines = []
    running.train(build(config(folder, kind)), tmp_path, lines.append)
    assert lines == ["default: resumed from step 2"]
    assert ending(run, tmp_path) == ending(run, workdir)


@pytest.fixture(scope="module")
def exported(uninterrupted, tmp_path_factory):
    """Return the folder of an exported role."""
    cache = {}

    def make(kind, role):
        if (kind, role) not in cache:
            run, workdir, *_ = uninterrupted(kind)
            cache[kind, role] = out = tmp_path_factory.mktemp("export") / role
            story = load_results(run, workdir, print)
            export_run.from_workdir(run, story, ExportRequest(role, member=1), out)
        return cache[kind, role]

    return make


@kinds
def test_a_restored_export_has_the_outputs_of_the_run(kind, uninterrupted, exported):
    run, _, outcome, _ = uninterrupted(kind)
    model, variables, _ = model_export.restore(exported(kind, "student"), run.source.spec)
    answer = jax.jit(lambda batch: model.apply(variables, batch, train=False)[0].logits)
    logits, labels = [], []
    for batch in run.source.evals["test"]():
        real = batch["mask"] > 0
        logits.append(np.asarray(answer(batch), np.float64)[real])
        labels.append(batch["label"][real])
    logits, labels = np.concatenate(logits), np.concatenate(labels)
    chosen = special.log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]
    scores = outcome.members[1].results["test"]
    assert scores["student/nll"] == pytest.approx(-chosen.mean(), rel=2e-5)
    assert scores["student/accuracy"] == pytest.approx(
        np.mean(logits.argmax(-1) == labels), abs=1e-6
    )


def test_an_export_keeps_its_vocabulary(uninterrupted, exported):
    tokenizer = tokenize.wordpiece(exported("bert", "teacher"))
    assert tokenize.words(tokenizer) == tokenize.words(
        uninterrupted("bert")[0].data.dataset.tokenizer
    )


@kinds
def test_a_run_can_start_from_an_export_in_hugging_face_format(
    kind, uninterrupted, exported, tmp_path
):
    run, workdir, _, folder = uninterrupted(kind)
    story = load_results(run, workdir, print)
    request = ExportRequest("student", member=1, form="huggingface")
    export_run.from_workdir(run, story, request, tmp_path / "hf")
    settings = config(folder, kind)
    settings["roles"]["student"]["checkpoint"] = str(tmp_path / "hf")
    (variant,) = build(settings).variants
    _, variables, _ = model_export.restore(exported(kind, "student"), run.source.spec)
    assert variant.new_heads == ()
    jax.tree.map(np.testing.assert_array_equal, variant.initial_variables["student"], variables)
    with pytest.raises(UserError, match=r"already holds .*name a new folder"):
        export_run.from_workdir(run, story, request, tmp_path / "hf")
    if kind == "bert":
        rows = [("a film", "the film"), ("one two three", "a")]
        here, there = (kdjax.load(place) for place in (exported(kind, "student"), tmp_path / "hf"))
        assert there.temperature == here.temperature != 1
        np.testing.assert_array_equal(there(rows).logits, here(rows).logits)
        assert there(rows).labels == here(rows).labels


def test_each_seed_draws_its_own_head_of_a_read_network(uninterrupted, exported, tmp_path):
    run, workdir, _, folder = uninterrupted("bert")
    request = ExportRequest("student", member=1, form="huggingface")
    export_run.from_workdir(run, load_results(run, workdir, print), request, tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: x for name, x in tensors.items() if not name.startswith("classifier")}, path)

    def start(members, **changes):
        settings = config(folder, "bert", **changes)
        settings["roles"]["student"]["checkpoint"] = str(tmp_path / "hf")
        (variant,) = build(settings).variants
        assert variant.new_heads == ("student",)
        variables, stacked = RunResults(run, tmp_path, print).initial_weights(
            MemberGroup(variant, tuple(members))
        )["student"]
        assert stacked
        return variables.params

    both, alone = start([0, 1]), start([0], seed=1, sweep={})
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y[0]), both, alone)
    drawn = np.asarray(both["fc"]["kernel"])
    assert np.std(drawn) == pytest.approx(0.02, rel=0.5)
    assert not np.any(drawn[0] == drawn[1])
    for name in set(both) - {"fc"}:
        jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[1]), both[name])


@pytest.mark.long
def test_a_regression_has_correlations_and_no_accuracy(tmp_path, monkeypatch):
    settings = config(tmp_path / "data", task="glue/stsb", select={"metric": "pearson"})
    settings["sweep"] = {}
    settings["roles"]["teacher"]["terms"] = {"label_logit_mse": {}}
    soft = {"toward": "teacher", "temperature": 2.0}
    settings["roles"]["student"]["terms"] = {"label_logit_mse": {}, "logit_mse": soft}
    monkeypatch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
    assert cli.main(train(experiment(tmp_path, settings), tmp_path / "run")) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (member,) = report["variants"][0]["members"]
    scores = member["results"]["test"]
    for role in ("teacher", "student"):
        assert -1 <= scores[f"{role}/pearson"] <= 1
        assert scores[f"{role}/mse"] > 0
    assert not [name for name in scores if "accuracy" in name or "ece" in name]


def after(folder, kind, devices, parallel):
    """Return params and metrics after two steps of a program."""
    settings = config(folder, kind, devices=devices, parallel=parallel, sweep={})
    for role in settings["roles"].values():
        role["model"]["dropout"] = 0.0  # masks differ by device
        role["optimizer"] = {
            "name": "sgd",
            "learning_rate": 0.1,
        }  # Adam's first step is a sign
    settings["roles"]["student"]["terms"]["sinkhorn"]["weight"] = 1.0
    run = build(settings)
    program, state = make_program(run, MemberGroup(run.variants[0], (0,)), {})
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    for _ in range(2):
        state, metrics = program.step(state, next(batches))
    return jax.device_get(program.layout.fetch(state).params), program.layout.read(metrics)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "parallel"), [("bert", "mesh"), ("t5", "pmap")])
def test_transport_on_eight_devices_equals_one(kind, parallel, tmp_path):
    """This includes transport between tokens, whose number differs between devices."""
    one, eight = (after(tmp_path, kind, devices, parallel) for devices in (1, 8))
    assert jax.tree.structure(one) == jax.tree.structure(eight)
    for (path, a), b in zip(jax.tree.leaves_with_path(eight), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=5e-5, atol=5e-6, err_msg=jax.tree_util.keystr(path))


def epsilon(settings):
    settings["roles"]["student"]["terms"]["sinkhorn"]["epsilon"] = 0.0


BAD = {
    "no vocabulary": (lambda s: s["data"].update(vocabulary="nowhere.txt"), "data.vocabulary"),
    "metric": (lambda s: s.update(select={"metric": "matthews"}), "select.metric is 'matthews'"),
    "augment": (lambda s: s["data"].update(augment="crop_flip"), "text is not augmented"),
    "epsilon": (epsilon, "roles.student.terms.sinkhorn: epsilon is 0; it must be > 0"),
    "task": (lambda s: s["data"].update(task="glue/mrcp"), "did you mean glue/mrpc?"),
    "form": (lambda s: s["data"].update(form="choices"), "roles.teacher"),
    "path": (lambda s: s["data"].update(path="nowhere"), "data.path=nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_errors_are_one_line(name, tmp_path, capsys):
    settings = config(tmp_path / "data")
    change, words = BAD[name]
    change(settings)
    refused(capsys, train(experiment(tmp_path, settings), tmp_path / "run"), words)


def test_a_teacher_with_another_vocabulary_is_an_error(exported, tmp_path, capsys):
    settings = config(tmp_path / "data")
    teacher = settings["roles"]["teacher"]
    teacher |= {"terms": {}, "checkpoint": str(exported("bert", "teacher"))}
    build(settings)
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ann", "bob")
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    settings["data"]["vocabulary"] = str(tmp_path / "vocab.txt")
    words = ("roles.teacher.checkpoint", "another vocabulary", "data.vocabulary")
    refused(capsys, train(experiment(tmp_path, settings), tmp_path / "run"), *words)
