"""Several steps in one dispatch: the same steps for every layout, and the same resume."""

import itertools

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.train.loop import DivergenceTracker, Every, Hooks, Plan, fit


def config(**changes):
    ce = {"ce": {}}
    return {
        "num_steps": 4,
        "batch_size": 16,
        "devices": 1,
        "steps_per_dispatch": 2,
        "data": {"name": "synthetic", "num_classes": 4, "shape": (6, 6, 1), "augment": "crop_flip"},
        "roles": {
            "teacher": {"model": {"name": "mlp", "hidden": (12,)}, "terms": ce},
            "student": {
                "model": {"name": "mlp", "hidden": (8,)},
                "terms": {**ce, "balanced_kl": {"toward": "teacher"}},
            },
        },
        "sweep": {"seed": (0, 4)},
        **changes,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"devices": 2, "members_over_devices": False},
        {"devices": 2, "members_over_devices": True},
        {"devices": 2, "members_over_devices": False, "parallel": "mesh"},
    ],
    ids=["one", "pmap", "members", "mesh"],
)
def test_two_steps_in_one_dispatch_equal_two_dispatches(changes):
    run = build(config(**changes))
    program, state = make_program(run, MemberGroup(run.variants[0], (0, 1)), {})
    batches = list(itertools.islice(device_batches(run, program, 0), 4))
    singly, rows = program.layout.place(state), []
    for batch in batches:
        singly, metrics = program.step(singly, batch)
        rows.append(program.layout.read(metrics))
    pairs = program.layout.place(make_program(run, MemberGroup(run.variants[0], (0, 1)), {})[1])
    for number in (0, 2):
        pairs, metrics = program.multi_step(pairs, tuple(batches[number : number + 2]))
        actual_metrics = program.layout.read(metrics)
        for offset in (0, 1):
            for name, value in rows[number + offset].items():
                # the compiler may sum in another order inside a loop
                actual = actual_metrics[name]
                assert actual.shape == (2, 2), name  # members, steps
                actual = actual[:, offset]
                np.testing.assert_allclose(actual, value, rtol=2e-5, atol=1e-6, err_msg=name)
    ends = (jax.device_get(program.layout.fetch(s).params) for s in (singly, pairs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), *ends)


def hooks(sizes, *, steps_per_dispatch):
    def multi_step(state, batches):
        sizes.append(len(batches))
        return state + len(batches), {"student/loss": np.array([batches], float)}

    def step(state, batch):
        sizes.append(1)
        return state + 1, {"student/loss": np.array([float(batch)])}

    def ignore(*args):
        return None

    return Hooks(step, list, *[ignore] * 6, multi_step, steps_per_dispatch)


def test_batches_of_several_lengths_are_not_one_dispatch():
    lengths = iter([4, 4, 4, 8, 4, 4, 8, 8, 8])
    sizes, seen = [], []
    one = hooks(sizes, steps_per_dispatch=3)
    called = one._replace(
        step=lambda state, batch: one.step(state, batch.size),
        multi_step=lambda state, batches: one.multi_step(state, [x.size for x in batches]),
        on_progress=lambda number, values, speed: seen.append(float(values["student/loss"][0])),
    )
    batches = (np.zeros(length) for length in lengths)
    plan = Plan(0, num_steps=9, images_per_step=1, every=Every(9, 0, 0, 0))
    tracker = DivergenceTracker(1)
    assert fit(called, 0, batches, plan, tracker) == 9
    assert sizes == [3, 1, 1, 1, 3]
    assert seen == [8.0]


@pytest.mark.parametrize("start", [0, 3])
def test_grouping_of_steps_depends_only_on_their_numbers(start):
    sizes, logged = [], []
    called = hooks(sizes, steps_per_dispatch=3)._replace(
        log=lambda number, values: logged.append((number, float(values["student/loss"][0])))
    )
    fit(
        called,
        start,
        itertools.count(start + 1),
        Plan(start, num_steps=12, images_per_step=1, every=Every(5, 0, 0, 0)),
        DivergenceTracker(1),
    )
    assert sizes == [3, 1, 1, 3, 1, 1, 1, 1][0 if start == 0 else 1 :]
    assert logged == [(5, 5.0), (10, 10.0), (12, 12.0)]


def test_invalid_numbers_of_steps_are_errors():
    with pytest.raises(UserError, match="steps_per_dispatch is -1"):
        build(config(steps_per_dispatch=-1))
