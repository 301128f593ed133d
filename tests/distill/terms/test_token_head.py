"""Terms whose logits are computed in chunks: values and gradients of the plain path, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.distill import Player, co_train, terms
from kdjax.distill.terms.token_head import Head, weighted_sum
from kdjax.errors import UserError
from kdjax.types import Model, Outputs, Variables

BATCH, LENGTH, WORDS, WIDTHS = 3, 5, 7, {"student": 4, "teacher": 6}
NAMES = (
    "ce", "forward_kl", "reverse_kl", "soft_cross_entropy", "hard_cross_entropy",
    "total_variation", "jensen_shannon", "skew_forward_kl", "skew_reverse_kl", "adaptive_kl",
)  # fmt: skip
MASK = (np.arange(LENGTH) < np.array([[5], [3], [1]])).astype(np.float32)


def decoder(width, rows):
    """Return a network of one matrix and an embedding; `rows`: its rows are tokens."""

    def init(key, batch):
        word, table = (0.8 * jax.random.normal(k, (WORDS, width)) for k in jax.random.split(key))
        return Variables({"word": word, "table": table}, {})

    def apply(variables, batch, *, train, key=None):
        states = jnp.tanh(variables.params["word"][batch["input_ids"]])
        table, targets = variables.params["table"], batch["targets"]
        logits = states @ table.T
        mask = jnp.asarray(MASK) * batch["mask"][:, None]
        features = {
            "token_states": states,
            "token_table": table,
            "token_logits": logits,
            "token_mask": mask,
            "token_targets": targets,
        }
        if not rows:
            return Outputs(jnp.zeros((BATCH, 2)), features), {}
        features |= {"row_label": targets.reshape(-1), "row_mask": mask.reshape(-1)}
        return Outputs(logits.reshape(-1, WORDS), features), {}

    return Model(init, apply)


def batch():
    r = np.random.default_rng(0)
    ids = r.integers(0, WORDS, (2, BATCH, LENGTH)).astype(np.int32)
    label = np.zeros((BATCH, 2), np.int32)
    mask = np.array([1, 1, 0], np.float32)
    return {"input_ids": ids[0], "targets": ids[1], "label": label, "mask": mask}


def term(name, layer, chunk):
    spec = terms.TERM_SPECS[name](layer=layer, chunk=chunk)
    toward = () if spec.teachers == "none" else ("teacher",)
    scalars = {"temperature": 1.7} if "temperature" in spec.scalars else {}
    return terms.make_term(spec, toward=toward, scalars={"weight": 0.3, **scalars})


@functools.cache
def value_and_gradients(name, layer, chunk):
    players = {role: Player(decoder(width, rows=not layer), {}) for role, width in WIDTHS.items()}
    players["student"] = players["student"]._replace(terms={name: term(name, layer, chunk)})
    method = co_train(players)
    variables = method.init(jax.random.key(1), batch())
    hparams = {"student": {"terms": {name: dict(players["student"].terms[name].scalars)}}}

    def loss(params):
        stats = {role: {} for role in players}
        total, aux = method.loss(params, stats, batch(), hparams, jax.random.key(0))
        return total, aux.metrics

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(
        {r: v.params for r, v in variables.items()}
    )


BY_SEQUENCE = [("ce", "token_logits"), ("forward_kl", "token_logits")]


@pytest.mark.parametrize(("name", "layer"), [*((name, "") for name in NAMES), *BY_SEQUENCE])
def test_values_and_gradients_of_the_plain_path(name, layer):
    (right, metrics), gradients = value_and_gradients(name, layer, 0)
    assert right > 0.01
    for chunk in (4, *[100] * (name == "forward_kl")):  # tokens are padded to chunks of four
        (value, in_chunks), grads = value_and_gradients(name, layer, chunk)
        np.testing.assert_allclose(value, right, rtol=1e-5)
        np.testing.assert_allclose(
            in_chunks[f"student/{name}/raw"], metrics[f"student/{name}/raw"], rtol=1e-5
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), grads, gradients
        )
    assert all(np.abs(x).max() > 1e-3 for x in gradients["student"].values())
    assert not any(x.any() for x in gradients["teacher"].values())


def test_tokens_without_weight_have_no_effect():
    r = np.random.default_rng(0)
    states, table = r.normal(size=(6, 3)).astype("f4"), r.normal(size=(5, 3)).astype("f4")
    teacher = Head(jnp.asarray(states[:, ::-1]), jnp.asarray(table))
    states[4:] = np.nan
    weights = jnp.array([1.0, 2.0, 0.5, 1.0, 0.0, 0.0])

    def total(head, count):
        other = Head(teacher.states[:count], teacher.table)
        return weighted_sum(difference, head, other, weights[:count], {}, 4)

    value, grads = jax.value_and_grad(total)(Head(jnp.asarray(states), jnp.asarray(table)), 6)
    right, cut = jax.value_and_grad(total)(Head(jnp.asarray(states[:4]), jnp.asarray(table)), 4)
    np.testing.assert_allclose(value, right, rtol=1e-6)
    np.testing.assert_allclose(grads.table, cut.table, rtol=1e-6)
    np.testing.assert_allclose(grads.states, np.pad(cut.states, ((0, 2), (0, 0))), rtol=1e-6)


def difference(student, teacher):
    return jnp.sum((student - teacher) ** 2, axis=-1)


def test_temporary_memory_is_that_of_a_chunk():
    tokens, width, words = 512, 8, 1000

    def temporary(loss):
        arrays = [jnp.ones((tokens, width)), jnp.ones((words, width))] * 2
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arrays).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    def plain(states, table, teacher_states, teacher_table):
        return jnp.sum(difference(states @ table.T, teacher_states @ teacher_table.T))

    def chunked(states, table, teacher_states, teacher_table):
        student, teacher = Head(states, table), Head(teacher_states, teacher_table)
        return weighted_sum(difference, student, teacher, jnp.ones(tokens), {}, 32)

    assert temporary(chunked) < temporary(plain) / 5


@pytest.mark.parametrize(
    ("layer", "chunk", "message"),
    [
        ("token_logits", -1, "chunk is -1; it must be >= 1, or 0"),
        ("class_logits", 8, "class_logits are not logits of tokens"),
    ],
)
def test_bad_chunks(layer, chunk, message):
    with pytest.raises(UserError, match=message):
        terms.TERM_SPECS["forward_kl"](layer=layer, chunk=chunk)
