"""Sweeps: their members, and equality of each member with a single run."""

import jax
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run.member_groups import MemberGroup
from kdjax.experiment.run.program import device_batches, make_program
from kdjax.train import sweep

RATE, TEMPERATURE = (
    "roles.*.optimizer.learning_rate",
    "roles.student.terms.forward_kl.temperature",
)
# a stacked member is a batched product: the same sums in another order
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


class TestMembers:
    def test_grid_varies_the_last_path_fastest(self):
        members = sweep.members({"seed": [0, 1], "x": [1.0, 2.0]})
        assert members == [{"seed": a, "x": b} for a in (0, 1) for b in (1.0, 2.0)]

    def test_zip(self):
        members = sweep.members({"seed": [0, 1], "x": [1.0, 2.0]}, "zip")
        assert members == [{"seed": 0, "x": 1.0}, {"seed": 1, "x": 2.0}]

    @pytest.mark.parametrize("mode", ["grid", "zip"])
    def test_an_empty_sweep_is_one_member(self, mode):
        assert sweep.members({}, mode) == [{}]

    @pytest.mark.parametrize(
        ("table", "mode", "message"),
        [
            ({"seed": []}, "grid", "sweep.seed is .*a list of one value or more"),
            ({"seed": "012"}, "grid", "sweep.seed is '012'; it must be a list"),
            ({"seed": 3}, "grid", "sweep.seed is 3; it must be a list"),
            ({"seed": [0, 1], "x": [1.0]}, "zip", "differ in length: .*'seed': 2, 'x': 1"),
            ({"seed": [0]}, "product", "sweep_mode is 'product'; it must be grid or zip"),
        ],
    )
    def test_errors(self, table, mode, message):
        with pytest.raises(UserError, match=message):
            sweep.members(table, mode)


class TestPlace:
    HPARAMS = {  # noqa: RUF012
        "teacher": {},
        "student": {
            "terms": {"ce": {"weight": 1.0}, "forward_kl": {"weight": 1.0, "temperature": 2.0}},
            "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0},
        },
        "peer": {
            "terms": {"ce": {"weight": 1.0}},
            "optimizer": {"learning_rate": 0.1, "weight_decay": 0.0},
        },
    }

    def test_one_role(self):
        actual = sweep.place(self.HPARAMS, TEMPERATURE, 4.0)
        assert actual["student"]["terms"]["forward_kl"] == {"weight": 1.0, "temperature": 4.0}
        assert actual["student"]["terms"]["ce"] == {"weight": 1.0}
        assert actual["peer"] == self.HPARAMS["peer"]
        assert self.HPARAMS["student"]["terms"]["forward_kl"]["temperature"] == 2.0

    def test_star_is_every_role_with_that_path(self):
        actual = sweep.place(self.HPARAMS, RATE, 0.3)
        rates = {
            role: hparams.get("optimizer", {}).get("learning_rate")
            for role, hparams in actual.items()
        }
        assert rates == {"teacher": None, "student": 0.3, "peer": 0.3}

    def test_star_is_every_term_with_that_scalar(self):
        path = "roles.student.terms.*.temperature"
        actual = sweep.place(self.HPARAMS, path, 4.0)["student"]["terms"]
        assert actual == {"ce": {"weight": 1.0}, "forward_kl": {"weight": 1.0, "temperature": 4.0}}
        table = {path: (1.0, 2.0), "roles.peer.terms.*.temperature": (1.0,), TEMPERATURE: (3.0,)}
        assert list(sweep.applicable(table, self.HPARAMS)) == [TEMPERATURE]
        del table[TEMPERATURE]
        assert list(sweep.applicable(table, self.HPARAMS)) == [path]
        table["roles.*.terms.forward_kl.temperature"] = (3.0,)
        with pytest.raises(UserError, match=r"both set roles.student.*temperature; remove one"):
            sweep.applicable(table, self.HPARAMS)

    @pytest.mark.parametrize(
        "path",
        [
            "roles.student.model.hidden",
            "roles.student.terms.forward_kl",
            "roles.student.terms.forward_kl.temprature",
            "roles.pupil.optimizer.learning_rate",
            "roles.teacher.optimizer.learning_rate",
            "batch_size",
            "student.optimizer.learning_rate",
        ],
    )
    def test_errors_list_the_paths_that_can_be_swept(self, path):
        message = rf"sweep.{path} is not a number .*`variants` .*seed, .*{TEMPERATURE}".replace(
            ".", r"\."
        )
        with pytest.raises(UserError, match=message.replace(r"\.*", ".*")):
            sweep.place(self.HPARAMS, path, 1.0)


def config(**changes):
    return {
        "num_steps": 5,
        "batch_size": 16,
        "eval_batch_size": 32,
        "devices": 1,
        "data": {"name": "synthetic", "num_classes": 4, "shape": (6, 6, 1), "augment": "crop_flip"},
        "roles": {
            "teacher": {
                "model": {"name": "mlp", "hidden": (12,)},
                "terms": {"ce": {}},
            },
            "student": {
                "model": {"name": "mlp", "hidden": (8,)},
                "terms": {"ce": {}, "forward_kl": {"toward": "teacher", "temperature": 2.0}},
            },
        },
        **changes,
    }


def train(run, members=None, initial=None, steps=4):
    members = range(len(run.variants[0].members)) if members is None else members
    program, state = make_program(run, MemberGroup(run.variants[0], tuple(members)), initial or {})
    state, batches = program.layout.place(state), device_batches(run, program, 0)
    for _ in range(steps):
        state, metrics = program.step(state, next(batches))
    return program, jax.device_get(state), jax.device_get(metrics)


def row(tree, member):
    return jax.tree.map(lambda x: x[member], tree)


def assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@pytest.fixture(scope="module")
def swept():
    table = {"seed": (0, 5, 9), RATE: (0.1, 0.02, 0.05), TEMPERATURE: (1.0, 4.0, 2.0)}
    return train(build(config(sweep=table, sweep_mode="zip")))


@pytest.mark.parametrize("member", [0, 2])
def test_a_member_equals_the_single_run(swept, member):
    _, states, metrics = swept
    seed, rate, temperature = [(0, 0.1, 1.0), None, (9, 0.05, 2.0)][member]
    single = config(seed=seed)
    for role in ("teacher", "student"):
        single["roles"][role]["optimizer"] = {"learning_rate": rate}
    single["roles"]["student"]["terms"]["forward_kl"]["temperature"] = temperature
    _, alone, expected = train(build(single))
    for part in ("params", "opt", "hparams"):
        assert_close(row(getattr(states, part), member), row(getattr(alone, part), 0))
    assert_close(row(metrics, member), row(expected, 0))
    key = jax.random.key_data(states.key)[member]
    assert np.array_equal(key, jax.random.key_data(alone.key))


def test_members_differ_and_are_compiled_once(swept):
    program, states, _ = swept
    kernel = states.params["student"]["fc"]["kernel"]
    assert not np.allclose(kernel[0], kernel[1])
    assert program.step._cache_size() == 1


def test_members_in_turn_equal_stacked_members(swept):
    table = {"seed": (0, 5, 9), RATE: (0.1, 0.02, 0.05), TEMPERATURE: (1.0, 4.0, 2.0)}
    settings = config(sweep=table, sweep_mode="zip", members_in_turn=True)
    program, states, metrics = train(build(settings))
    assert_close(states._replace(key=None), swept[1]._replace(key=None))
    assert_close(metrics, swept[2])
    assert program.step._cache_size() == 1


def test_a_subset_of_members_gives_the_same(swept):
    table = {"seed": (0, 5, 9), RATE: (0.1, 0.02, 0.05), TEMPERATURE: (1.0, 4.0, 2.0)}
    _, states, _ = train(build(config(sweep=table, sweep_mode="zip")), members=(1, 2))
    assert_close(states.params, row(swept[1].params, np.array([1, 2])))


def frozen_run(**settings):
    """Build two members with a frozen teacher."""
    settings = config(sweep={RATE: (0.1, 0.02)}, **settings)
    settings["roles"]["teacher"].update(terms={}, from_variant="first")
    settings["variants"] = {
        "first": {
            "roles.student": None,
            "roles.teacher.terms": {"ce": {}},
            "roles.teacher.from_variant": None,
        },
        "kd": {},
    }
    run = build(settings)
    return run._replace(variants=run.variants[1:])


@pytest.fixture(scope="module")
def frozen():
    """Train two members that share one frozen teacher, or have a copy each."""
    run = frozen_run()
    model, batch = run.variants[0].players["teacher"].model, {"image": np.zeros((1, 6, 6, 1), "f4")}
    variables = jax.jit(model.init)(jax.random.key(8), batch)
    copies = sweep.stack([variables, variables])
    return (
        variables,
        train(run, initial={"teacher": (variables, False)}),
        train(run, initial={"teacher": (copies, True)}),
    )


def test_a_frozen_teacher_is_not_stacked(frozen):
    variables, (program, state, _), (stacked, stacked_state, _) = frozen
    assert program.axes.params == {"teacher": None, "student": 0}
    assert program.axes.stats == {"teacher": None, "student": 0}
    assert stacked.axes.params == {"teacher": 0, "student": 0}
    assert set(state.opt) == {"student"}
    for a, b in zip(
        jax.tree.leaves(state.params["teacher"]), jax.tree.leaves(variables.params), strict=True
    ):
        assert np.array_equal(a, b)
    assert stacked_state.params["teacher"]["fc"]["kernel"].shape[0] == 2


def test_a_shared_teacher_equals_copies(frozen):
    _, (_, shared, metrics), (_, copies, expected) = frozen
    assert_close(shared.params["student"], copies.params["student"])
    assert_close(metrics, expected)
    assert not np.allclose(*shared.params["student"]["fc"]["kernel"])


def test_in_turn_a_frozen_teacher_is_not_stacked(frozen):
    variables, (_, stacked, metrics), _ = frozen
    _, state, in_turn = train(
        frozen_run(members_in_turn=True), initial={"teacher": (variables, False)}
    )
    assert_close(state._replace(key=None), stacked._replace(key=None))
    assert_close(in_turn, metrics)


def test_one_data_seed_is_one_order_of_the_data(frozen):
    _, (program, state, _), _ = frozen
    assert program.axes.key is None
    assert state.key.shape == ()


@pytest.fixture(scope="module")
def common_order():
    settings = config(sweep={"seed": (0, 5)})
    settings["data"] = {**settings["data"], "seed": 3}
    settings["roles"]["teacher"].update(terms={}, checkpoint=None, from_variant="first")
    settings["variants"] = {
        "first": {
            "roles.student": None,
            "roles.teacher.terms": {"ce": {}},
            "roles.teacher.from_variant": None,
        },
        "kd": {},
    }
    run = build(settings)
    run = run._replace(variants=run.variants[1:])
    model, batch = run.variants[0].players["teacher"].model, {"image": np.zeros((1, 6, 6, 1), "f4")}
    return run, jax.jit(model.init)(jax.random.key(8), batch)


def test_members_with_a_common_order_equal_single_runs(common_order):
    run, teacher = common_order
    _, states, metrics = train(run, initial={"teacher": (teacher, False)})
    assert not np.allclose(*states.params["student"]["fc"]["kernel"])  # other initial weights
    for member in (0, 1):
        _, alone, expected = train(run, (member,), initial={"teacher": (teacher, False)})
        assert_close(row(states.params["student"], member), row(alone.params["student"], 0))
        assert_close(row(metrics, member), row(expected, 0))


@pytest.mark.parametrize(("seed", "passes"), [(3, 1), (None, 2)])
def test_a_frozen_teacher_runs_once_for_a_common_order(common_order, seed, passes):
    """The teacher's product is [images, pixels] x [pixels, hidden], once or for each member."""
    run, teacher = common_order
    data = run.config.data.model_copy(update={"seed": seed})
    run = run._replace(config=run.config.model_copy(update={"data": data}))
    program, state = make_program(
        run, MemberGroup(run.variants[0], (0, 1)), {"teacher": (teacher, False)}
    )
    batch = next(device_batches(run, program, 0))
    actual = str(jax.make_jaxpr(program.step)(program.layout.place(state), batch))
    assert actual.count("f32[16,12]") > 0 if passes == 1 else "f32[16,12]" not in actual
    assert batch["id"].shape == ((16,) if passes == 1 else (2, 16))


def test_the_seed_of_a_common_order_is_an_integer():
    with pytest.raises(UserError, match=r"data\.seed is -1; it must be >= 0"):
        build(config(data={"name": "synthetic", "seed": -1}))
