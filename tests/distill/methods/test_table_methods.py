"""The methods of the results tables, each for two steps, and phases of training."""

import jax
import numpy as np
import pytest

from experiments import digits_table
from experiments._methods import METHODS
from kdjax.data import example_batch
from kdjax.distill import Player, terms
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.build.plan import InitialWeights
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from tests.distill.methods import tables

CHEAP = ("ft", "ofd")  # a critic and phases; a connector and margins
NAMES = [n if n in CHEAP else pytest.param(n, marks=pytest.mark.long) for n in METHODS]


def config(name, **changes):
    """Return the table's first row, which trains the teacher, and one more."""
    table = digits_table.get_config("smoke").to_dict()
    table["variants"] = {row: table["variants"][row] for row in ("alone", name)}
    return {**table, "devices": 1, "tensorboard": False, **changes}


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name):
    run = build(config(name))
    variant = run.variants[1]
    batch = run.prepare_eval(example_batch(run.source))
    teacher = variant.players["teacher"].model.init(jax.random.key(1), batch)
    weights = {"teacher": InitialWeights(teacher, stacked=False)}
    program, state = make_program(run, MemberGroup(variant, (0,)), weights)
    before = jax.device_get(state.params["student"])
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    for _ in range(2):
        state, metrics = program.step(state, next(batches))
        for metric, values in program.layout.read(metrics).items():
            assert np.isfinite(values).all(), metric
    after = jax.device_get(program.layout.fetch(state).params["student"])
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
    assert any(jax.tree.leaves(moved))


def windowed(from_step, until_step=None):
    return terms.make_term(
        terms.cross_entropy(), weight_schedule=terms.StepWindow(from_step, until_step)
    )


def test_a_player_waits_while_all_its_terms_are_off():
    table = {
        "first": Player(tables.network("mlp", "student"), {"ce": windowed(0, 2)}),
        "both": Player(
            tables.network("mlp", "teacher"), {"ce": windowed(3), "label": tables.term("ce")}
        ),
    }
    run = tables.evaluator(table)
    variables = {
        role: player.model.init(jax.random.key(0), tables.batch()) for role, player in table.items()
    }
    seen = [run(variables, tables.batch(), step) for step in (1.0, 2.0, 3.0)]
    assert [bool(aux.active["first"]) for _, _, aux in seen] == [True, False, False]
    assert all("both" not in aux.active for _, _, aux in seen)
    weighted = [float(aux.metrics["both/ce/weighted"]) for _, _, aux in seen]
    assert weighted[:2] == [0, 0]
    assert weighted[2] == float(seen[2][2].metrics["both/ce/raw"])


def test_a_wait_by_steps_sees_whole_batches():
    with pytest.raises(UserError, match=r"roles.student is paused .* set accumulate = 1"):
        build(config("ft", accumulate=2))


def test_two_views_need_an_augmentation():
    whole = config("mlld")
    whole["data"]["augment"] = "none"
    with pytest.raises(UserError, match="a term compares two views"):
        build(whole)
