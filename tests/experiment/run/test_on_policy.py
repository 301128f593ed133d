"""Runs in which the student completes texts, with logits in chunks: devices, resume, errors."""

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from tests.experiment.run.test_language_model import cache as cache
from tests.experiment.run.test_language_model import config

OWN = {"max_new_tokens": 5, "share": 0.5, "temperature": 0.8}


def settings(folder, **changes):
    """Return GKD: the student compares itself with the teacher on its own tokens."""
    table = config(folder, prompts=True, **changes)
    terms = {"jensen_shannon": {"toward": "teacher", "chunk": 16}}
    table["roles"]["student"] |= {"terms": terms, "on_policy": OWN}
    table["roles"]["teacher"]["terms"] = {"ce": {"chunk": 16}}
    return table


def start(run):
    """Return a program and its state on the host."""
    return make_program(run, MemberGroup(run.variants[0], (0,)), {})


def steps(run, program, state, numbers):
    """Take steps from a plain state; return it after them, with the metrics of each."""
    layout, batches = program.layout, device_batches(run, program, numbers[0])
    placed, rows = layout.place(state), []
    for _ in numbers:
        placed, metrics = program.step(placed, next(batches))
        rows.append({name: float(np.ravel(x)[0]) for name, x in layout.read(metrics).items()})
    return jax.device_get(layout.fetch(placed)), rows


def first_step(table):
    run = build(table)
    return steps(run, *start(run), [0])[1][0]


def test_a_resumed_run_draws_what_the_uninterrupted_one_draws(tmp_path):
    run = build(settings(tmp_path))
    program, state = start(run)
    end, rows = steps(run, program, state, range(4))
    drawn = [row["student/on_policy"] for row in rows]
    assert min(drawn) == 0 < max(drawn)
    assert "student/accuracy" not in rows[0]  # it needs all logits
    half, first = steps(run, program, state, range(2))
    resumed, rest = steps(run, program, half, range(2, 4))
    assert [*first, *rest] == rows
    jax.tree.map(np.testing.assert_array_equal, resumed.params, end.params)


@pytest.mark.long
def test_four_devices_equal_one(tmp_path):
    table = settings(tmp_path)
    table["roles"]["student"]["on_policy"] = {**OWN, "share": 1.0}
    one, four = (first_step({**table, "devices": count}) for count in (1, 4))
    for name, value in one.items():
        np.testing.assert_allclose(four[name], value, rtol=2e-4, atol=1e-6, err_msg=name)


@pytest.mark.long
def test_chunks_have_the_losses_of_all_logits(tmp_path):
    table = config(tmp_path)
    chunked = settings(tmp_path)
    chunked["roles"]["student"]["on_policy"] = {}
    chunked["data"] = table["data"]
    table["roles"]["student"]["terms"] = {"jensen_shannon": {"toward": "teacher"}}
    right, actual = (first_step(each) for each in (table, chunked))
    for name in ("teacher/ce/raw", "student/jensen_shannon/raw", "student/grad_norm"):
        np.testing.assert_allclose(actual[name], right[name], rtol=1e-4, err_msg=name)


BAD = {
    "two": (
        {"teacher": {"on_policy": OWN}},
        "roles.teacher.on_policy and roles.student.on_policy are set; one role",
    ),
    "share": ({"student": {"on_policy": {**OWN, "share": 1.5}}}, "share is 1.5"),
    "length": (
        {"student": {"on_policy": {**OWN, "max_new_tokens": 24}}},
        "max_new_tokens is 24, but the texts have 24 tokens",
    ),
    "vocabulary": (
        {"student": {"model": {"name": "llama", "width": 4, "num_heads": 2, "vocab_size": 400}}},
        "jensen_shannon compares tokens of student and teacher one by one",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_line(tmp_path, name):
    changes, message = BAD[name]
    table = settings(tmp_path)
    for role, entries in changes.items():
        table["roles"][role] |= entries
    with pytest.raises(UserError, match=message):
        build(table)


def test_other_data_have_no_texts_to_complete():
    network = {"model": {"name": "mlp"}, "terms": {"ce": {}}, "on_policy": OWN}
    table = {"devices": 1, "data": {"name": "digits"}, "roles": {"student": network}}
    with pytest.raises(UserError, match=r"student.on_policy needs the texts of a language model"):
        build(table)


def test_a_sweep_refuses_a_share_above_one(tmp_path):
    table = settings(tmp_path, sweep={"roles.student.on_policy.share": (0.5, 1.5)})
    with pytest.raises(UserError, match=r"on_policy.share is 1.5; it must be >= 0 and <= 1"):
        build(table)
