"""On-policy distillation: the texts that a student completes, and steps that can be repeated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.distill import Player, co_train, on_policy, terms
from kdjax.distill.methods.on_policy import complete
from kdjax.errors import UserError
from kdjax.models import Sampling, generate
from kdjax.models.text.llama import LlamaOptions, llama
from kdjax.types import Model, Outputs

WORDS, LENGTH, NEW, END = 13, 10, 4, 12
MODEL = llama(LlamaOptions(vocab_size=WORDS, num_layers=1, width=8, num_heads=2, max_length=LENGTH))
# a text, a prompt of 3 with a completion of 4, two texts in a row, a prompt of 8
SEGMENTS = np.array([[1] * 9 + [0], [1] * 7 + [0] * 3, [1] * 3 + [2] * 7, [1] * 10], np.int32)
IDS = np.random.default_rng(0).integers(1, 11, SEGMENTS.shape).astype(np.int32) * (SEGMENTS > 0)
LABEL = np.where(SEGMENTS > 0, np.roll(IDS, -1, axis=1), -1)
LABEL[1, :2] = LABEL[3, :7] = -1
CUT = [5, 3, 6, 0]  # the last row has no room


def batch():
    mask = (SEGMENTS > 0).astype(np.int32)
    texts = {"input_ids": IDS, "attention_mask": mask, "segment_ids": SEGMENTS, "label": LABEL}
    return {**texts, "id": np.arange(4, dtype=np.int32), "mask": np.ones(4, np.float32)}


@functools.cache
def variables():
    drawn = jax.device_get(jax.jit(MODEL.init)(jax.random.key(0), batch()))
    return jax.tree.map(lambda x: x * 12 if x.ndim == 2 else x, drawn)


@functools.cache
def completed(end=None):
    keys = jax.random.split(jax.random.key(1), 4)
    sampling, weights = Sampling(NEW, temperature=1.5, eos_id=end), variables()
    texts, changed = jax.jit(lambda b: complete(MODEL, weights, b, keys, sampling))(batch())
    return jax.device_get(texts), np.asarray(changed), keys, sampling


def test_texts_end_with_the_tokens_of_the_student():
    texts, changed, keys, sampling = completed()
    np.testing.assert_array_equal(changed, [True, True, True, False])
    alone = {name: np.zeros((3, 6), np.int32) for name in ("input_ids", "attention_mask")}
    for row, cut in enumerate(CUT[:3]):  # padded at the left
        prompt = IDS[row, :cut][SEGMENTS[row, :cut] == SEGMENTS[row, cut - 1]]
        alone["input_ids"][row, 6 - len(prompt) :] = prompt
        alone["attention_mask"][row, 6 - len(prompt) :] = 1
    weights = variables()
    drawn = jax.jit(lambda b: generate(MODEL, weights, b, keys[:3], sampling))(alone).ids
    for row, cut in enumerate(CUT[:3]):
        new, end = drawn[row], cut + NEW
        np.testing.assert_array_equal(texts["input_ids"][row, :end], [*IDS[row, :cut], *new])
        assert not texts["input_ids"][row, end:].any()
        np.testing.assert_array_equal(texts["attention_mask"][row], np.arange(LENGTH) < end)
        right = np.full(LENGTH, -1)
        right[cut - 1 : end - 1] = new
        np.testing.assert_array_equal(texts["label"][row], right)
        segments = [*SEGMENTS[row, :cut], *[SEGMENTS[row, cut - 1]] * NEW]
        np.testing.assert_array_equal(texts["segment_ids"][row, :end], segments)


def test_a_row_without_room_stays_as_it_is():
    texts = completed()[0]
    for name in texts:
        np.testing.assert_array_equal(texts[name][3], batch()[name][3])


def test_a_text_ends_behind_its_end_token():
    free = completed()[0]
    end = int(free["input_ids"][0, CUT[0] + 1])
    texts = completed(end)[0]
    size = CUT[0] + 1 + list(free["input_ids"][0, CUT[0] :]).index(end)
    np.testing.assert_array_equal(texts["attention_mask"][0], np.arange(LENGTH) < size)
    assert texts["label"][0, size - 2] == end
    assert (texts["label"][0, size - 1 :] == -1).all()


def tokens_as_rows(model):
    """Return a model whose rows are tokens, as a language model's are."""

    def apply(variables, batch, *, train, key=None):
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        outputs, stats = model.apply(variables, tokens, train=train, key=key)
        label = jnp.asarray(batch["label"]).reshape(-1)
        rows = {"row_label": jnp.maximum(label, 0), "row_mask": (label >= 0).astype(jnp.float32)}
        logits = outputs.logits.reshape(-1, WORDS)
        return Outputs(logits, {**outputs.features, **rows}), stats

    return Model(model.init, apply)


def method(axis_name=None):
    kl = terms.make_term(terms.reverse_kl(), toward=("teacher",))
    network = tokens_as_rows(MODEL)
    players = {"teacher": Player(network, {}), "student": Player(network, {"kl": kl})}
    plain = co_train(players, axis_name=axis_name)
    sampling = Sampling(NEW, eos_id=END)
    return on_policy(plain, "student", MODEL, sampling, axis_name=axis_name), plain


HPARAMS = {"teacher": {}, "student": {"terms": {"kl": {"weight": 1.0, "temperature": 1.0}}}}


@functools.cache
def step(axis_name=None):
    """Return a function (share, key, batch) -> loss, metrics and the student's gradients."""
    (own, _), weights = method(axis_name), variables().params
    teacher = jax.tree.map(lambda x: x[::-1], weights)

    def run(share, key, batch):
        numbers = {"share": share, "temperature": 1.5}
        hparams = {**HPARAMS, "student": {**HPARAMS["student"], "on_policy": numbers}}

        def loss(student):
            params, stats = {"teacher": teacher, "student": student}, {"teacher": {}, "student": {}}
            total, aux = own.loss(params, stats, batch, hparams, key)
            return total, aux.metrics

        return jax.value_and_grad(loss, has_aux=True)(weights)

    if axis_name is None:
        return jax.jit(run)
    return jax.pmap(run, axis_name, in_axes=(None, None, 0))


def test_the_share_decides_by_the_key():
    shares = []
    for number in range(8):
        (_, metrics), _ = step()(0.5, jax.random.key(number), batch())
        shares.append(float(metrics["student/on_policy"]))
    assert set(shares) == {0.0, 0.75}  # one of four rows has no room
    (value, metrics), grads = step()(0.5, jax.random.key(0), batch())
    (again, _), same = step()(0.5, jax.random.key(0), batch())
    assert value == again
    jax.tree.map(np.testing.assert_array_equal, grads, same)


def test_the_loss_is_that_of_the_drawn_texts():
    _, plain = method()
    (value, _), grads = step()(1.0, jax.random.key(5), batch())
    assert 0.01 < value < np.inf
    (other, _), _ = step()(1.0, jax.random.key(6), batch())
    assert value != other
    (off, metrics), _ = step()(0.0, jax.random.key(5), batch())
    assert metrics["student/on_policy"] == 0
    params = {"teacher": jax.tree.map(lambda x: x[::-1], variables().params)}
    params["student"] = variables().params
    stats = {"teacher": {}, "student": {}}
    key = jax.random.key(0)
    right, _ = jax.jit(lambda b: plain.loss(params, stats, b, HPARAMS, key))(batch())
    np.testing.assert_allclose(off, right, rtol=1e-6)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_two_devices_draw_what_one_draws():
    (value, metrics), _ = step()(1.0, jax.random.key(5), batch())
    divided = {name: x.reshape(2, 2, *x.shape[1:]) for name, x in batch().items()}
    (shares, both), _ = step("data")(1.0, jax.random.key(5), divided)
    np.testing.assert_allclose(shares.sum(), value, rtol=1e-5)
    np.testing.assert_allclose(both["student/on_policy"].sum(), metrics["student/on_policy"])


def test_texts_must_be_longer_than_the_new_tokens():
    with pytest.raises(UserError, match=r"max_new_tokens is 10, but the texts have 10 tokens"):
        complete(MODEL, variables(), batch(), jax.random.split(jax.random.key(0), 4), Sampling(10))
