"""Arrays that one step updates and does not, bit for bit; one trace; errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import losses
from kdjax.distill import Player, co_train, switokd_pause, terms
from kdjax.errors import UserError
from kdjax.types import Model, Outputs, Variables
from tests.distill.methods import tables

DEFAULTS = {"hard_cross_entropy": {"label_smoothing": 0.0}, "forward_kl": {"temperature": 1.0}}


@pytest.fixture(scope="module")
def stepped():
    """Return, by method, the states before and after two steps and the last metrics."""
    known = {}

    def run(name):
        if name not in known:
            step, state = jax.jit(tables.step(name)), tables.start(name)
            for number in range(2):
                state, metrics = step(state, tables.batch(number))
            known[name] = (tables.start(name), jax.device_get(state), metrics)
        return known[name]

    return run


@pytest.mark.parametrize("name", tables.METHODS)
def test_all_trained_roles_are_updated(stepped, name):
    before, after, metrics = stepped(name)
    assert int(after.step) == 2
    assert all(np.isfinite(value) for value in metrics.values())
    for role in after.opt:
        for part in ("params", "stats", "opt"):
            old, new = getattr(before, part)[role], getattr(after, part)[role]
            for (path, x), y in zip(
                jax.tree_util.tree_flatten_with_path(old)[0], jax.tree.leaves(new), strict=True
            ):
                assert not np.array_equal(x, y), (role, part, jax.tree_util.keystr(path))
        assert metrics[f"{role}/grad_norm"] > 0


def test_frozen_teacher_is_bit_identical(stepped):
    before, after, _ = stepped("kd")
    assert set(after.opt) == {"student"}
    assert jax.tree.leaves(before.stats["teacher"]), "the teacher must have statistics"
    assert tables.same(before.params["teacher"], after.params["teacher"])
    assert tables.same(before.stats["teacher"], after.stats["teacher"])


def test_frozen_teacher_uses_its_running_statistics():
    table = tables.players("kd")
    variables, batch = tables.make_variables("cnn"), tables.batch()
    _, _, aux = tables.evaluator(table)(variables, batch)
    teacher = table["teacher"].model
    z, _ = teacher.apply(variables["teacher"], batch, train=False)
    right = np.mean(np.argmax(z.logits, -1) == batch["label"])
    assert np.allclose(aux.metrics["teacher/accuracy"], right)


def test_key_and_hparams_do_not_change(stepped):
    before, after, _ = stepped("bdkd")
    assert jnp.array_equal(jax.random.key_data(before.key), jax.random.key_data(after.key))
    assert tables.same(before.hparams, after.hparams)


def test_one_trace_for_all_values():
    traces = []

    def prepare(batch, key):
        traces.append(1)
        return batch

    step, state = jax.jit(tables.step("bdkd", "mlp", prepare=prepare)), tables.start("bdkd", "mlp")
    seen = []
    for scale in (1.0, 2.0, 0.5):
        scaled = jax.tree.map(lambda x, k=scale: np.float32(x * k), state.hparams)
        seen.append(float(step(state._replace(hparams=scaled), tables.batch())[1]["student/loss"]))
    step(state._replace(step=np.int32(7)), tables.batch(1))
    assert len(traces) == 1
    assert len(set(seen)) == 3, "the scalars must matter"


class TestOwnLogits:
    """A DeiT learns the labels by one output and the teacher by another."""

    def players(self, **student_terms):
        def model(heads):
            def init(key, batch):
                return Variables({name: jnp.float32(0.5) for name in heads}, {})

            def apply(variables, batch, *, train, key=None):
                features = {n: x * batch["image"] for n, x in variables.params.items()}
                return Outputs(sum(features.values()) / len(heads), features), {}

            return Model(init, apply)

        made = {
            name: terms.make_term(
                terms.TERM_SPECS[name](layer=layer), toward=() if name == "ce" else ("teacher",)
            )
            for name, layer in student_terms.items()
        }
        student = model(("class_logits", "distillation_logits"))
        return {"teacher": Player(model(("plain",)), {}), "student": Player(student, made)}

    @pytest.mark.parametrize("name", ["hard_cross_entropy", "forward_kl"])
    def test_each_term_moves_its_output_alone(self, name):
        heads = {"ce": "class_logits", name: "distillation_logits"}
        method = co_train(self.players(**heads))
        z = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]], np.float32)
        batch = {"image": z, "label": np.array([2, 0]), "mask": np.ones(2, np.float32)}
        params = {
            "teacher": {"plain": jnp.float32(2.0)},
            "student": {"class_logits": jnp.float32(0.5), "distillation_logits": jnp.float32(-1.0)},
        }
        stats = {role: {} for role in params}
        hparams = {
            "student": {"terms": {"ce": {"weight": 1.0, "label_smoothing": 0.0},
                                  name: {"weight": 1.0, **DEFAULTS[name]}}},
            "teacher": {"terms": {}},
        }  # fmt: skip

        def loss(own):
            moved = {**params, "student": own}
            return method.loss(moved, stats, batch, hparams, jax.random.key(0), jnp.int32(0))

        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params["student"])
        expected = {
            "ce": losses.cross_entropy(0.5 * z, batch["label"]).mean(),
            name: getattr(losses, name)(-z, 2 * z).mean(),
        }
        for term, value in expected.items():
            np.testing.assert_allclose(aux.metrics[f"student/{term}/raw"], value, rtol=1e-5)
        alone = jax.grad(lambda a: losses.cross_entropy(a * z, batch["label"]).mean())(0.5)
        np.testing.assert_allclose(grads["class_logits"], alone, rtol=1e-5)
        assert grads["distillation_logits"] != 0

    def test_a_network_without_that_output_is_an_error(self):
        players = self.players(ce="class_logits")
        method = co_train({"student": players["teacher"]._replace(terms=players["student"].terms)})
        batch = {"image": np.zeros((1, 3), np.float32), "label": np.zeros(1, int)}
        batch["mask"] = np.ones(1, np.float32)
        hparams = {"student": {"terms": {"ce": {"weight": 1.0, "label_smoothing": 0.0}}}}
        params = {"student": {"plain": jnp.float32(1.0)}}
        with pytest.raises(UserError, match="no layer 'class_logits'; the network has plain"):
            method.loss(params, {"student": {}}, batch, hparams, jax.random.key(0), jnp.int32(0))


class TestSwitokd:
    @pytest.fixture(scope="class")
    def run(self):
        """Step from the same state on a batch of each mode; momentum is not zero."""
        table, batch, state = tables.players("switokd"), tables.batch(), tables.start("switokd")
        variables = tables.scaled(tables.make_variables("cnn"), "teacher", 20)
        rng = np.random.default_rng(0)
        opt = jax.tree.map(
            lambda x: rng.normal(size=np.shape(x)).astype(x.dtype) if np.ndim(x) else x, state.opt
        )
        params = {role: v.params for role, v in variables.items()}
        state, z = state._replace(params=params, opt=opt), tables.logits(table, variables, batch)
        step = jax.jit(tables.step("switokd"))
        results = {}
        for mode, choose in (("expert", np.argmax), ("learning", np.argmin)):
            label = choose(z["teacher"], -1).astype(np.int32)
            signal = losses.switch_signal(z["student"], z["teacher"], label)
            assert bool(signal.expert) == (mode == "expert")
            results[mode] = step(state, {**batch, "label": label})
        return jax.device_get(state), results

    def test_expert_mode_leaves_the_teacher_bit_identical(self, run):
        before, results = run
        after, metrics = results["expert"]
        assert metrics["teacher/active"] == 0
        for part in ("params", "stats", "opt"):
            old, new = getattr(before, part), getattr(after, part)
            assert tables.same(old["teacher"], new["teacher"]), part
            assert not tables.same(old["student"], new["student"]), part
        assert metrics["teacher/grad_norm"] > 0, "it would have moved"

    def test_learning_mode_updates_both(self, run):
        before, results = run
        after, metrics = results["learning"]
        assert metrics["teacher/active"] == 1
        for part in ("params", "stats", "opt"):
            for role in ("teacher", "student"):
                old, new = getattr(before, part)[role], getattr(after, part)[role]
                assert not tables.same(old, new), (part, role)


class TestErrors:
    def model(self):
        return tables.network("mlp", "student")

    @pytest.mark.parametrize("peer", ["teecher", "student"])
    def test_toward_must_name_another_player(self, peer):
        own = {"forward_kl": tables.term("forward_kl", toward=(peer,))}
        table = {"student": Player(self.model(), own), "teacher": Player(self.model(), {})}
        with pytest.raises(ValueError, match=rf"student: forward_kl .*'{peer}'.*\(teacher\)"):
            co_train(table)

    def test_pause_must_watch_another_player(self):
        own = {"ce": tables.term("ce")}
        table = {"student": Player(self.model(), own, (switokd_pause, "nobody"))}
        with pytest.raises(ValueError, match=r"student: pause .*'nobody'.*\(none\)"):
            co_train(table)

    @pytest.mark.parametrize(
        ("spec", "says"),
        [
            (
                terms.feature_mse("hint", "pooled"),
                "student: hint reads student: no layer 'hint'; the network has hidden0, pooled",
            ),
            (
                terms.relational_distance("pooled", "stage9"),
                "student: hint reads teacher: no layer 'stage9'; the network has hidden0, pooled",
            ),
            (
                terms.class_mean_cosine(),
                "student: hint reads teacher: no layer 'pooled_class_means'",
            ),
            (terms.forward_kl("token_logits"), "student: hint reads student: no layer 'token_l"),
        ],
    )
    def test_a_layer_that_a_network_lacks(self, spec, says):
        own = {"hint": terms.make_term(spec, toward=("teacher",))}
        table = {"student": Player(self.model(), own), "teacher": Player(self.model(), {})}
        variables, hparams = tables.make_variables("mlp"), tables.hparams(table)
        params, stats = ({r: v[n] for r, v in variables.items()} for n in (0, 1))
        params["teacher"] = params["student"]
        loss, key = co_train(table).loss, jax.random.key(0)
        with pytest.raises(UserError, match=says):
            loss(params, stats, tables.batch(), hparams, key)
        unlabelled = {name: x for name, x in tables.batch().items() if name != "label"}
        with pytest.raises(UserError, match=r'co_train reads batch\["label"\]'):
            loss(params, stats, unlabelled, hparams, key)

    def test_somebody_must_train(self):
        with pytest.raises(ValueError, match="no role has terms"):
            co_train({"teacher": Player(self.model(), {})})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"name": "forward_kl"}, "needs `toward`"),
            ({"name": "ce", "toward": ("teacher",)}, "remove `toward`"),
            ({"name": "ce", "scalars": {"temprature": 1.0}}, "'temprature'.*weight, label_smooth"),
            (
                {"name": "forward_kl", "toward": ("t",), "scalars": {"temperature": 0.0}},
                "temperature is 0; it must be > 0",
            ),
            (
                {"name": "balanced_kl", "toward": ("t",), "scalars": {"emphasis": -1.0}},
                "emphasis is -1; it must be > 0",
            ),
            (
                {"name": "jensen_shannon", "toward": ("t",), "scalars": {"mixture": 1.0}},
                "mixture is 1; it must be > 0 and < 1",
            ),
            (
                {"name": "forward_kl", "toward": ("t",), "scalars": {"temperature": float("nan")}},
                "temperature is nan; it must be a finite number",
            ),
        ],
    )
    def test_invalid_terms_are_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            tables.term(**options)
