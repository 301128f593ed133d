"""CRD and its memory against plain numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from kdjax import losses
from kdjax.errors import UserError
from kdjax.losses import contrastive
from tests.losses import references

LABELS = jnp.array([2, 0, 1, 0, 2, 2, 1, 0], jnp.int32)
IDS = jnp.array([4, 1, 6], jnp.int32)
KEY = jax.random.key(3)
OPTIONS = {"num_negatives": 7, "temperature": 0.3, "momentum": 0.25}


def memory(started=True):
    bank = losses.contrast_init(jax.random.key(0), LABELS, width=4)
    if not started:
        return bank
    return bank._replace(log_normalizers=jnp.array([0.3, -0.2]), started=jnp.array(True))


def embeddings(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.array(2 * rng.normal(size=(3, 4)), jnp.float32) for _ in range(2))


def chosen(bank):
    negatives = contrastive._negatives(KEY, IDS, bank, OPTIONS["num_negatives"])
    return np.concatenate([IDS[:, None], negatives], axis=1)


def plain(s, t, bank, normalizers):
    return references.contrast(
        s, t, *references.float64(bank.student, bank.teacher), chosen(bank), normalizers,
        OPTIONS["num_negatives"], OPTIONS["temperature"],
    )  # fmt: skip


class TestLoss:
    def test_values_and_gradients_match_the_definition(self):
        both, bank = embeddings(), memory()
        normalizers = np.exp([0.3, -0.2])
        value, after = losses.contrast_loss(*both, IDS, bank, KEY, **OPTIONS)
        np.testing.assert_allclose(value, plain(*both, bank, normalizers), rtol=1e-5)
        np.testing.assert_array_equal(after.log_normalizers, bank.log_normalizers)

        @jax.jit
        def loss(s, t):
            return losses.contrast_loss(s, t, IDS, bank, KEY, **OPTIONS)[0]

        grads = jax.jit(jax.grad(lambda *a: jnp.sum(loss(*a)), (0, 1)))(*both)
        for position, grad in enumerate(grads):
            expected = references.central(
                lambda s, t: plain(s, t, bank, normalizers), references.float64(*both), position
            )
            np.testing.assert_allclose(grad, expected, rtol=1e-4, atol=1e-5)
        check_grads(
            loss, both, order=1, modes=["fwd", "rev"], atol=0.02, rtol=0.02
        )  # fmt: skip

    def test_the_first_batch_fixes_the_normalizers(self):
        (s, t), bank = embeddings(), memory(started=False)
        value, after = losses.contrast_loss(s, t, IDS, bank, KEY, **OPTIONS)
        expected = []
        for v, other in ((s, bank.teacher), (t, bank.student)):
            v = v / np.linalg.norm(v, axis=1, keepdims=True)
            scores = np.einsum("bd,bnd->bn", v, other[chosen(bank)])
            expected.append(np.mean(np.exp(scores / OPTIONS["temperature"])))
        np.testing.assert_allclose(np.exp(after.log_normalizers), expected, rtol=1e-5)
        np.testing.assert_allclose(value, plain(s, t, bank, expected), rtol=1e-5)
        assert bool(after.started)
        again = losses.contrast_loss(*embeddings(1), IDS, after, KEY, **OPTIONS)[1]
        np.testing.assert_array_equal(again.log_normalizers, after.log_normalizers)

    def test_a_better_match_has_a_lower_loss(self):
        bank = memory()
        matched = losses.contrast_loss(
            bank.teacher[IDS], bank.student[IDS], IDS, bank, KEY, **OPTIONS
        )[0]
        opposite = losses.contrast_loss(
            -bank.teacher[IDS], -bank.student[IDS], IDS, bank, KEY, **OPTIONS
        )[0]
        assert np.all(np.asarray(matched) < np.asarray(opposite))

    def test_a_low_temperature_and_zero_embeddings_are_finite(self):
        for bank in (memory(), memory(started=False)):
            for s in (jnp.zeros((3, 4)), bank.teacher[IDS]):
                value, grad = jax.jit(jax.value_and_grad(
                    lambda s, m=bank: jnp.sum(losses.contrast_loss(
                        s, s, IDS, m, KEY, num_negatives=4, temperature=1e-3
                    )[0])
                ))(s)  # fmt: skip
                assert np.isfinite(value)
                assert np.all(np.isfinite(grad))


class TestMemory:
    def test_negatives_are_uniform_over_images_of_other_classes(self):
        drawn = np.asarray(contrastive._negatives(KEY, IDS, memory(), 4000))
        for row, own in zip(drawn, IDS, strict=True):
            others = np.flatnonzero(LABELS[own] != LABELS)
            rows, counts = np.unique(row, return_counts=True)
            np.testing.assert_array_equal(rows, others)
            np.testing.assert_allclose(counts / 4000, 1 / len(others), atol=0.04)  # 5 sd

    def test_only_rows_of_the_batch_change_and_have_length_one(self):
        (s, t), bank = embeddings(), memory()
        after = losses.contrast_loss(s, t, IDS, bank, KEY, **OPTIONS)[1]
        for before, now, v in ((bank.student, after.student, s), (bank.teacher, after.teacher, t)):
            np.testing.assert_allclose(np.linalg.norm(now, axis=1), 1, rtol=1e-6)
            rest = np.setdiff1d(np.arange(8), IDS)
            np.testing.assert_array_equal(now[rest], before[rest])
            moved = 0.25 * before[IDS] + 0.75 * v / np.linalg.norm(v, axis=1, keepdims=True)
            moved = moved / np.linalg.norm(moved, axis=1, keepdims=True)
            np.testing.assert_allclose(now[IDS], moved, rtol=1e-5, atol=1e-6)

    def test_no_gradient_through_the_memory(self):
        def total(s, bank):
            value, after = losses.contrast_loss(s, s, IDS, bank, KEY, **OPTIONS)
            return jnp.sum(value) + jnp.sum(after.student)

        s, bank = embeddings()[0], memory()
        inside = jax.jit(jax.grad(lambda m: total(s, bank._replace(student=m, teacher=m))))(
            bank.student
        )
        assert np.all(np.asarray(inside) == 0)

    def test_all_steps_share_one_trace_without_hidden_state(self):
        (s, t), traces = embeddings(), []

        @jax.jit
        def step(bank, key):
            traces.append(0)
            return losses.contrast_loss(s, t, IDS, bank, key, **OPTIONS)

        first = step(memory(started=False), KEY)
        step(first[1], jax.random.key(9))
        repeat = step(memory(started=False), KEY)
        assert len(traces) == 1
        jax.tree.map(np.testing.assert_array_equal, first, repeat)


@pytest.mark.usefixtures("without_jaxtyping")
class TestErrors:
    def test_init_errors(self):
        with pytest.raises(UserError, match="the same class"):
            losses.contrast_init(KEY, jnp.ones(3, jnp.int32), width=2)
        with pytest.raises(UserError, match=r"labels: float32 \(3,\)"):
            losses.contrast_init(KEY, jnp.ones(3), width=2)
        with pytest.raises(UserError, match="width: must"):
            losses.contrast_init(KEY, LABELS, width=0)

    def test_loss_errors(self):
        (s, t), bank = embeddings(), memory()
        with pytest.raises(UserError, match=r"student \(3, 3\).*must be \[batch, 4\]"):
            losses.contrast_loss(s[:, :3], t, IDS, bank, KEY)
        with pytest.raises(UserError, match=r"ids \[batch\], got \(2,\)"):
            losses.contrast_loss(s, t, IDS[:2], bank, KEY)
        with pytest.raises(UserError, match="ids: dtype float32"):
            losses.contrast_loss(s, t, jnp.zeros(3), bank, KEY)
        for name, value in (("num_negatives", 0), ("temperature", 0.0), ("momentum", 1.0)):
            with pytest.raises(UserError, match=f"^{name}: must"):
                losses.contrast_loss(s, t, IDS, bank, KEY, **{name: value})
