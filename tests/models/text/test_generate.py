"""Sampling: tokens equal those of a forward pass over the full text, for every family."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax.errors import UserError
from kdjax.models.text import generate as generation
from kdjax.models.text.generate import Sampling, generate
from kdjax.models.transformers import FAMILIES
from kdjax.types import Variables

WORDS, NEW = 17, 5
SIZES = {"vocab_size": WORDS, "num_layers": 2, "width": 8, "num_heads": 2, "max_length": 16}
OPTIONS = {
    "gpt2": {},
    "gpt_neo": {"window": 3},
    "llama": {"kv_heads": 1},
    "mistral": {"window": 3},
    "qwen2": {"window": 3, "layers": ("global", "local")},
    "qwen3": {"head_width": 4},
}
# right, left, and in between; each row is one prompt
PROMPTS = np.array([[3, 5, 7, 0, 0], [0, 0, 0, 4, 9], [1, 0, 2, 0, 6]], np.int32)
KEYS = jax.random.split(jax.random.key(2), len(PROMPTS))
BATCH = {"input_ids": PROMPTS, "attention_mask": (PROMPTS > 0).astype(np.int32)}


@functools.cache
def network(family):
    """Return a network whose most probable tokens change along a text."""
    model = FAMILIES[family].factory(FAMILIES[family].options(**{**SIZES, **OPTIONS[family]}))
    variables = jax.jit(model.init)(jax.random.key(0), BATCH)
    grown = jax.tree.map(lambda x: x * 12 if x.ndim == 2 else x, variables.params)
    return model, Variables(grown, {})


@functools.cache
def compiled(family, eos_id=None):
    """Compile `generate` once for all temperatures and masses."""
    model, variables = network(family)

    @jax.jit
    def run(batch, keys, temperature, top_p):
        sampling = Sampling(NEW, temperature, top_p, eos_id)
        return generate(model, variables, batch, keys, sampling)

    return run


def recompute(family, prompt, keys, sampling):
    """Return the tokens of one prompt, by a forward pass over the full text for each."""
    _, variables = network(family)
    room = np.zeros((1, 16), np.int32)  # one shape, one compilation
    run = _forward(family)
    text, tokens = list(prompt), []
    for number in range(NEW):
        ids, mask = room.copy(), room.copy()
        ids[0, : len(text)], mask[0, : len(text)] = text, 1
        logits = run(variables, {"input_ids": ids, "attention_mask": mask})[:, len(text) - 1]
        key = jax.random.fold_in(keys, number)[None]
        text.append(int(generation.draw(logits, key, sampling)[0]))
        tokens.append(text[-1])
    return tokens


@functools.cache
def _forward(family):
    model, _ = network(family)
    return jax.jit(lambda v, batch: model.apply(v, batch, train=False)[0].logits)


LONG = ("gpt2", "llama", "mistral", "qwen3")


@pytest.mark.parametrize(
    "family", [pytest.param(f, marks=[pytest.mark.long] * (f in LONG)) for f in OPTIONS]
)
def test_tokens_equal_those_without_a_cache(family):
    for numbers in ((0.0, 1.0), (1.5, 0.9)):
        new = compiled(family)(BATCH, KEYS, *numbers)
        assert new.mask.all()
        for row, prompt in enumerate(PROMPTS):
            right = recompute(family, prompt[prompt > 0], KEYS[row], Sampling(NEW, *numbers))
            np.testing.assert_array_equal(new.ids[row], right, err_msg=str(numbers))
    assert len(set(np.ravel(new.ids))) > 3  # otherwise any cache would do


def test_a_text_ends_at_its_end_token():
    ids = np.asarray(compiled("qwen2")(BATCH, KEYS, 0.0, 1.0).ids)
    end = int(ids[0, 1])
    cut = compiled("qwen2", end)(BATCH, KEYS, 0.0, 1.0)
    for row, text in enumerate(ids):
        size = list(text).index(end) + 1 if end in text else NEW
        np.testing.assert_array_equal(cut.mask[row], np.arange(NEW) < size)
        np.testing.assert_array_equal(cut.ids[row], np.where(np.arange(NEW) < size, text, 0))


def test_a_text_depends_on_its_own_prompt_and_key_only():
    order = np.array([2, 0, 1])
    turned = compiled("qwen2")({k: x[order] for k, x in BATCH.items()}, KEYS[order], 1.5, 0.9)
    straight = compiled("qwen2")(BATCH, KEYS, 1.5, 0.9)
    np.testing.assert_array_equal(turned.ids, straight.ids[order])


def test_draws_follow_the_probabilities_of_the_nucleus():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    rows = jnp.broadcast_to(2 * logits, (4000, 4))  # at temperature 2: the probabilities above
    keys = jax.random.split(jax.random.key(0), len(rows))
    for top_p, right in ((1.0, [0.5, 0.3, 0.15, 0.05]), (0.8, [0.625, 0.375, 0, 0])):
        drawn = generation.draw(rows, keys, Sampling(1, temperature=2.0, top_p=top_p))
        share = np.bincount(drawn, minlength=4) / len(rows)
        np.testing.assert_allclose(share, right, atol=0.03)  # four deviations
        traced = jax.jit(lambda t, p: generation.draw(rows, keys, Sampling(1, t, p)))(2.0, top_p)
        np.testing.assert_array_equal(traced, drawn)
    greedy = jax.jit(lambda t: generation.draw(rows, keys, Sampling(1, t)))(0.0)
    assert not greedy.any()


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (Sampling(0), "max_new_tokens is 0"),
        (Sampling(1, temperature=-1.0), "temperature is -1.0; it must be a finite number >= 0"),
        (Sampling(1, top_p=0.0), r"top_p is 0.0; it must be in \(0, 1\]"),
        (Sampling(12), "17 tokens, but the network has 16 positions"),
    ],
)
def test_bad_numbers_are_one_line(sampling, message):
    with pytest.raises(UserError, match=message):
        generate(*network("qwen2"), BATCH, jax.random.key(0), sampling)


def test_another_network_is_refused():
    family = FAMILIES["distilbert"]
    model = family.factory(family.options(**SIZES, num_classes=2))
    variables = jax.jit(model.init)(jax.random.key(0), BATCH)
    with pytest.raises(UserError, match="generate needs a decoder with a key-value cache"):
        generate(model, variables, BATCH, jax.random.key(0), Sampling(2))
