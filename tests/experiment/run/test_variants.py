"""Variants with steps and seeds of their own: one teacher that learns longer than its students."""

import json

import jax
import numpy as np
import pytest

from kdjax import cli
from kdjax.experiment.build.build import build
from kdjax.experiment.run.results import load_results
from kdjax.report.results import RunSummary, from_json
from kdjax.report.summary_text import summary
from tests.faults.commands import base, experiment, train

TEACHER = {"num_steps": 6, "roles": {"student": None}, "sweep": {"seed": (7,)}}
KD = {"roles": {"teacher": {"terms": {"ce": None}, "from_variant": "teacher"}}}
CONFIG = base(variants={"teacher": TEACHER, "kd": KD}, sweep={"seed": (0, 1)})


def trained(folder, config):
    """Train by the command, twice: the second time nothing is left to do."""
    argv = train(experiment(folder, config), folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdjax.report.html.write", lambda workdir: workdir / "report.html")
        assert cli.main(argv) == 0
        before = (folder / "run" / "metrics.jsonl").read_bytes()
        assert cli.main(argv) == 0
    assert (folder / "run" / "metrics.jsonl").read_bytes() == before
    return folder / "run"


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("variants"), CONFIG)


def test_each_variant_has_its_steps(workdir):
    steps = {(line["variant"], line["split"], line["step"]) for line in metrics(workdir)}
    logged = {("teacher", "train", step) for step in (2, 4, 6)}
    logged |= {("kd", "train", step) for step in (2, 4)}
    ends = {(n, s, last) for n, last in (("teacher", 6), ("kd", 4)) for s in ("validation", "test")}
    assert steps == logged | ends
    report = from_json(RunSummary, json.loads((workdir / "report.json").read_text()))
    text = summary(report)
    assert "for 4 steps of 32 examples" in text
    assert ", teacher for 6 steps." in text


def test_a_variant_equals_a_run_of_its_steps(workdir, tmp_path):
    alone = trained(tmp_path, base(num_steps=6, roles__student=None, seed=7))
    names = ("step", "split", "teacher/loss", "teacher/accuracy", "teacher/nll")
    own, expected = (
        [[line.get(name) for name in names] for line in metrics(folder) if line["step"] > 0]
        for folder in (workdir, alone)
    )
    assert own[: len(expected)] == expected


def test_the_network_of_the_only_seed_is_everyones(workdir):
    run = build(CONFIG)
    results = load_results(run, workdir, print)
    teacher = results.networks(run.variants[0])["teacher"].params
    frozen = results.networks(run.variants[1])["teacher"].params
    both = jax.tree.map(lambda x: np.concatenate([x, x]), teacher)
    jax.tree.map(np.testing.assert_array_equal, frozen, both)
