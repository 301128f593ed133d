"""A critic between two players: against float64, over devices, in sweeps, after a stop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kdjax.distill import CriticRole, co_train, critic_hparams, critics, with_critic
from kdjax.distill.methods.co_train import role_key
from kdjax.errors import UserError
from kdjax.losses import contrastive
from kdjax.train import memory_estimate, parallel
from kdjax.train.step import init_state, make_step
from kdjax.types import Variables
from tests.distill.methods import tables
from tests.losses import references

ROWS, WIDTH, NEGATIVES = 24, 4, 7
LABELS = np.arange(ROWS, dtype=np.int32) % tables.CLASSES
NUMBERS = {"weight": 0.8, "temperature": 0.3, "momentum": 0.25}
PAIR = ("student", "teacher")


def batch(seed=0, count=16):
    ids = np.random.default_rng(seed).permutation(ROWS)[:count].astype(np.int32)
    return {**tables.batch(seed, count), "id": ids, "label": LABELS[ids]}


def problem(name="kd", between=PAIR, axis_name=None, schedules=None):
    """Return method, optimizers and hparams of a table of players with CRD's critic."""
    table = tables.players(name, "mlp", axis_name)
    critic = critics.contrast(LABELS, width=WIDTH, num_negatives=NEGATIVES)
    method = with_critic(
        co_train(table, axis_name=axis_name),
        "crd",
        CriticRole(critic, between, weight_schedules=schedules or {}),
        {role: player.model for role, player in table.items()},
        axis_name=axis_name,
    )
    numbers = critic_hparams(critic, {"contrast": NUMBERS}, learning_rate=0.1)
    tx = tables.optimizers(table)
    return method, {**tx, "crd": tx["student"]}, {**tables.hparams(table), "crd": numbers}


@functools.cache
def _start():
    method, tx, numbers = problem()
    return jax.device_get(
        jax.jit(lambda key: init_state(method, tx, key, batch(), numbers))(jax.random.key(3))
    )


def start():
    return _start()._replace(key=jax.random.key(3))  # a step donates its state, including the key


LAYOUTS = {
    "one": parallel.one_device,
    "pmap": functools.partial(parallel.pmap_data, 8, stacked_batch=False),
    "mesh": functools.partial(parallel.mesh_data, 8, stacked_batch=False),
}


@functools.cache
def after(layout):
    """Return state and metrics on the host after three steps; batches overlap."""
    place = LAYOUTS[layout]()
    method, tx, _ = problem(axis_name=place.axis_name)
    step, state = place.compile_step(make_step(method, tx, place.axis_name)), place.place(start())
    for number in range(3):
        state, metrics = step(state, place.put(batch(number)))
    if layout == "pmap":
        for copies in jax.tree.leaves(state.stats["crd"]):
            assert all(np.array_equal(copies[0], other) for other in copies), "memories differ"
    state = jax.device_get(place.fetch(state))
    return state._replace(key=jax.random.key_data(state.key)), place.read(metrics)


def test_heads_student_and_memory_change_and_the_teacher_does_not():
    before, (state, metrics) = start(), after("one")
    assert set(state.opt) == {"student", "crd"}
    for side in PAIR:
        for name, old in before.params["crd"][side].items():
            assert not np.array_equal(old, state.params["crd"][side][name]), (side, name)
    assert tables.same(before.params["teacher"], state.params["teacher"])
    seen = np.unique(np.concatenate([batch(n)["id"] for n in range(3)]))
    rest = np.setdiff1d(np.arange(ROWS), seen)
    assert len(rest)
    for name in ("student", "teacher"):
        old, new = getattr(before.stats["crd"], name), getattr(state.stats["crd"], name)
        assert np.array_equal(old[rest], new[rest])
        assert np.all(np.any(old[seen] != new[seen], axis=1))
    assert state.stats["crd"].started
    assert metrics["crd/grad_norm"] > 0
    assert np.isclose(metrics["crd/loss"], 0.8 * metrics["crd/contrast/raw"])
    assert np.isclose(metrics["crd/contrast/weighted"], metrics["crd/loss"])
    assert "crd/accuracy" not in metrics


@pytest.mark.parametrize("layout", ["pmap", "mesh"])
def test_eight_devices_equal_one(layout):
    """Float32 sums in another order differ by a few 1e-6 after three steps at values of order 1."""
    one, eight = after("one"), after(layout)
    for (path, a), b in zip(
        jax.tree_util.tree_flatten_with_path(eight)[0], jax.tree.leaves(one), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=5e-6, err_msg=jax.tree_util.keystr(path))


@functools.cache
def gradients(name="kd", between=PAIR, ramped=False):
    """Compile f(params, stats, batch, hparams, step) -> (loss, Aux), gradients of all roles."""
    schedules = {"contrast": optax.linear_schedule(0.0, 1.0, 4)} if ramped else None
    method, _, _ = problem(name, between, schedules=schedules)

    def loss(params, stats, batch, hparams, step=0):
        return method.loss(params, stats, batch, hparams, jax.random.key(5), step)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def pieces(state, b):
    """Return the inputs of a step by hand in float64: features, heads, memory, sampled rows."""
    table = tables.players("kd", "mlp")
    seen = {
        role: table[role]
        .model.apply(Variables(state.params[role], state.stats[role]), b, train=False)[0]
        .features["pooled"]
        for role in PAIR
    }
    heads = [state.params["crd"][side] for side in PAIR]
    memory = jax.tree.map(jnp.asarray, state.stats["crd"])
    drawn = contrastive._negatives(
        role_key(jax.random.key(5), "crd"), jnp.asarray(b["id"]), memory, NEGATIVES
    )
    chosen = np.concatenate([b["id"][:, None], drawn], axis=1)
    arrays = [*(seen[r] for r in PAIR), *(h[n] for h in heads for n in ("kernel", "bias"))]
    return references.float64(*arrays), references.float64(memory.student, memory.teacher), chosen


def by_hand(f_s, f_t, w_s, b_s, w_t, b_t, *, remembered, chosen, z):
    """Return CRD of each example from its features in float64; z are the two normalizers."""
    return references.contrast(
        f_s @ w_s + b_s, f_t @ w_t + b_t, *remembered, chosen, z, NEGATIVES, NUMBERS["temperature"]
    )


def normalizers(f_s, f_t, w_s, b_s, w_t, b_t, *, remembered, chosen):
    actual = []
    pairs = ((f_s @ w_s + b_s, remembered[1]), (f_t @ w_t + b_t, remembered[0]))
    for v, other in pairs:
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        scores = np.einsum("bd,bnd->bn", v, other[chosen])
        actual.append(np.mean(np.exp(scores / NUMBERS["temperature"])))
    return actual


def run(state, b, numbers, step=0, **kind):
    params = {role: state.params[role] for role in state.params}
    return gradients(**kind)(params, state.stats, b, numbers, step)


def scalars(weight=0.8):
    _, _, numbers = problem()
    numbers["crd"]["terms"]["contrast"]["weight"] = weight
    return jax.tree.map(jnp.float32, numbers)


def test_value_and_gradients_match_a_step_by_hand():
    state, b = start(), batch()
    arrays, remembered, chosen = pieces(state, b)
    z = normalizers(*arrays, remembered=remembered, chosen=chosen)
    (total, aux), grads = run(state, b, scalars())
    (plain, _), without = run(state, b, scalars(0.0))
    fixed = {"remembered": remembered, "chosen": chosen, "z": z}
    expected = np.mean(by_hand(*arrays, **fixed))
    np.testing.assert_allclose(aux.metrics["crd/contrast/raw"], expected, rtol=1e-5)
    np.testing.assert_allclose(total - plain, 0.8 * expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(aux.stats["crd"].log_normalizers), z, rtol=1e-5)

    def slope(position):
        return 0.8 / len(b["id"]) * references.central(
            lambda *a: by_hand(*a, **fixed), arrays, position
        )  # fmt: skip

    close = {"rtol": 1e-4, "atol": 2e-5}
    for position, (side, name) in {
        2: ("student", "kernel"),
        3: ("student", "bias"),
        4: ("teacher", "kernel"),
        5: ("teacher", "bias"),
    }.items():
        np.testing.assert_allclose(grads["crd"][side][name], slope(position), **close)
        assert not np.any(without["crd"][side][name])
    # the student's gradient: that at its features, pulled back through its network
    model = tables.players("kd", "mlp")["student"].model

    def features(params):
        return model.apply(Variables(params, {}), b, train=True)[0].features["pooled"]

    pulled = jax.vjp(features, state.params["student"])[1](jnp.float32(slope(0)))[0]
    added = jax.tree.map(np.subtract, grads["student"], without["student"])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **close), added, pulled)
    assert all(not np.any(x) for x in jax.tree.leaves(grads["teacher"]))


def test_masked_rows_have_no_effect():
    state, b = start(), batch()
    b["mask"] = np.float32(np.arange(len(b["id"])) < 10)
    arrays, remembered, chosen = pieces(state, b)
    real = [*(x[:10] for x in arrays[:2]), *arrays[2:]]
    z = normalizers(*real, remembered=remembered, chosen=chosen[:10])
    (_, aux), _ = run(state, b, scalars())
    expected = np.mean(by_hand(*real, remembered=remembered, chosen=chosen[:10], z=z))
    np.testing.assert_allclose(aux.metrics["crd/contrast/raw"], expected, rtol=1e-5)
    old, new = state.stats["crd"].student, aux.stats["crd"].student
    assert np.array_equal(old[b["id"][10:]], new[b["id"][10:]])
    assert np.all(np.any(old[b["id"][:10]] != new[b["id"][:10]], axis=1))


def test_the_second_player_is_detached_and_a_ramp_applies():
    kind = {"name": "dml", "ramped": True}
    _, _, numbers = problem("dml")
    numbers = jax.tree.map(jnp.float32, numbers)
    (early, aux), grads = run(start(), batch(), numbers, 1, **kind)
    (later, same), more = run(start(), batch(), numbers, 4, **kind)
    raw = aux.metrics["crd/contrast/raw"]
    np.testing.assert_allclose(aux.metrics["crd/loss"], 0.25 * 0.8 * raw, rtol=1e-5)
    np.testing.assert_allclose(later - early, 0.75 * 0.8 * raw, rtol=1e-4)
    assert np.array_equal(same.metrics["crd/contrast/raw"], raw)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        grads["teacher"], more["teacher"],
    )  # fmt: skip
    assert not tables.same(grads["student"], more["student"])


def test_two_critics_share_one_state():
    table = tables.players("dml", "mlp")
    models = {role: player.model for role, player in table.items()}
    method = co_train(table)
    for name, pair in (("one", PAIR), ("two", PAIR[::-1])):
        critic = critics.contrast(LABELS, width=3, num_negatives=2)
        method = with_critic(method, name, CriticRole(critic, pair), models)
    assert method.trains == ("teacher", "student", "one", "two")
    actual = jax.eval_shape(method.init, jax.random.key(0), batch())
    widths = {side: p["kernel"].shape for side, p in actual["two"].params.items()}
    assert widths == {"student": (12, 3), "teacher": (8, 3)}


def test_memory_estimate_includes_the_memory_bank():
    def estimate(width):
        table = tables.players("kd", "mlp")
        critic = critics.contrast(LABELS, width=width, num_negatives=NEGATIVES)
        models = {role: player.model for role, player in table.items()}
        method = with_critic(co_train(table), "crd", CriticRole(critic, PAIR), models)
        _, tx, numbers = problem()
        state = jax.eval_shape(
            lambda k: init_state(method, tx, k, batch(), numbers), jax.random.key(0)
        )
        return memory_estimate.member_bytes(method, state, batch())

    assert estimate(1004) - estimate(4) >= 2 * 2 * ROWS * 1000 * 4


class TestErrors:
    def test_errors_of_with_critic(self):
        with pytest.raises(ValueError, match=r"crd.between is \('student', 'x'\); .*of teacher"):
            problem(between=("student", "x"))
        with pytest.raises(ValueError, match="must name two players"):
            problem(between=("student", "student"))
        with pytest.raises(ValueError, match=r"but teacher is frozen, .* would train no player"):
            problem(between=("teacher", "student"))
        table = tables.players("kd", "mlp")
        models = {role: player.model for role, player in table.items()}
        critic = CriticRole(critics.contrast(LABELS), PAIR)
        method = with_critic(co_train(table), "third", critic, models)
        with pytest.raises(ValueError, match="third: this role exists already"):
            with_critic(method, "third", critic, models)

    def test_of_a_layer_that_a_player_lacks(self):
        table = tables.players("kd", "mlp")
        models = {role: player.model for role, player in table.items()}
        critic = critics.contrast(LABELS)._replace(layers=(("pooled", "hint"),))
        loss = with_critic(co_train(table), "crd", CriticRole(critic, PAIR), models).loss
        trees = ({r: v[n] for r, v in tables.make_variables("mlp").items()} for n in (0, 1))
        with pytest.raises(UserError, match="a critic reads teacher: no layer 'hint'; the network"):
            loss(*trees, batch(), tables.hparams(table), jax.random.key(0))

    def test_of_a_batch_without_ids(self):
        b = batch()
        del b["id"]
        with pytest.raises(UserError, match=r"roles.crd needs batch\['id'\], but the batch has im"):
            run(start(), b, scalars())

    def test_errors_of_the_scalars(self):
        critic = critics.contrast(LABELS)
        for terms, message in (
            ({}, "no terms, so the critic would train no role; it has contrast"),
            ({"ce": {}}, "terms.ce: this critic has no such term; it has contrast"),
            (
                {"contrast": {"tau": 1.0}},
                "this term has no scalar 'tau'; it has weight, temp",
            ),
            ({"contrast": {"temperature": 0.0}}, "terms.contrast.temperature is 0; it must be > 0"),
            ({"contrast": {"momentum": 1.0}}, "momentum is 1; it must be >= 0 and < 1"),
        ):
            with pytest.raises(UserError, match=message):
                critic_hparams(critic, terms, learning_rate=0.1)

    @pytest.mark.parametrize(
        ("labels", "options", "message"),
        [
            (np.zeros(4, int), {}, "all training examples have the same class"),
            (LABELS, {"num_negatives": 0}, "num_negatives is 0; it must be a whole number >= 1"),
            (LABELS, {"width": 2.5}, "width is 2.5; it must be a whole number >= 1"),
        ],
    )
    def test_errors_of_contrast(self, labels, options, message):
        with pytest.raises(UserError, match=message):
            critics.contrast(labels, **options)
