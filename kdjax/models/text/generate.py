"""Sampling of texts from a decoder, token by token, with a key-value cache."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kdjax.errors import UserError, check_count, check_entries, is_number
from kdjax.models.layers.from_linen import CACHE
from kdjax.models.text.attention import token_logits
from kdjax.models.text.causal import STATES, TABLE
from kdjax.types import Array, Batch, Model, PyTree, Variables


class Sampling(NamedTuple):
    """The rule by which tokens are drawn.

    `temperature` 0 takes the most probable token. `top_p` draws from the fewest most probable
    tokens whose probabilities sum to at least `top_p`. A text ends with the token `eos_id`.
    `temperature` and `top_p` may be traced.
    """

    max_new_tokens: int
    temperature: Any = 1.0
    top_p: Any = 1.0
    eos_id: int | None = None


class Generated(NamedTuple):
    """New tokens of each text, int32 [batch, max_new_tokens].

    `mask` is 1 up to and including the end token; after it `mask` and `ids` are 0.
    """

    ids: Array
    mask: Array


class _Loop(NamedTuple):
    number: Array  # of tokens drawn so far
    variables: Variables
    ids: Array
    mask: Array
    alive: Array  # bool [batch]


def generate(
    model: Model, variables: Variables, batch: Batch, key: Array, sampling: Sampling
) -> Generated:
    """Continue prompts with tokens sampled from a decoder.

    The prompt is processed once; each new token then uses the stored keys and values of the earlier
    ones. The loop ends early when all texts have ended. Compile it with `jax.jit`; its gradient
    is 0.

    Args:
      model: a decoder: `llama.llama` or `gpt_neo.gpt_neo`.
      variables: of the model.
      batch: "input_ids" and "attention_mask" int32 [batch, length]: prompts of different lengths,
        padded on either side, with at least one token each.
      key: [], or [batch], one for each text. Each text has its own random numbers.
      sampling: the rule by which tokens are drawn.

    Returns:
      The new tokens and their mask, int32 [batch, max_new_tokens].

    Raises:
      UserError: a number of `sampling` that is out of range; prompt and new tokens together exceed
        the network's positions; a network without a key-value cache.

    >>> from kdjax.models.text.llama import LlamaOptions, llama
    >>> model = llama(LlamaOptions(vocab_size=9, num_layers=1, width=8, num_heads=2))
    >>> batch = {"input_ids": jnp.ones((2, 3), jnp.int32), "attention_mask": jnp.ones((2, 3), int)}
    >>> variables = jax.jit(model.init)(jax.random.key(0), batch)
    >>> generate(model, variables, batch, jax.random.key(1), Sampling(4)).ids.shape
    (2, 4)
    """
    _check(sampling)
    check_entries("generate", ("input_ids", "attention_mask"), batch)
    count, (rows, length) = sampling.max_new_tokens, batch["input_ids"].shape
    real = jnp.asarray(batch["attention_mask"]) > 0
    keys = key if key.ndim else jax.random.split(key, rows)

    def read(variables: Variables, ids: Array, last: Array) -> tuple[Variables, Array]:
        """Append tokens to the cache; return the logits at position `last` of each text."""
        tokens = {"input_ids": ids, "attention_mask": mask}
        features, stats = _apply(model, variables, tokens)
        states = jnp.take_along_axis(features[STATES], last[:, None, None], axis=1)[:, 0]
        return variables._replace(stats=stats), token_logits(states, features[TABLE], states.dtype)

    def write(loop: _Loop, logits: Array) -> _Loop:
        """Draw a token for each text that has not ended."""
        drawn = draw(logits, _fold(keys, loop.number), sampling)
        token = jnp.where(loop.alive, drawn, 0)
        ids = loop.ids.at[:, loop.number].set(token)
        drawn_mask = loop.mask.at[:, loop.number].set(loop.alive.astype(jnp.int32))
        ends = False if sampling.eos_id is None else token == sampling.eos_id
        return _Loop(loop.number + 1, loop.variables, ids, drawn_mask, loop.alive & ~ends)

    def advance(loop: _Loop) -> _Loop:
        token = jax.lax.dynamic_slice_in_dim(loop.ids, loop.number - 1, 1, axis=1)
        variables, logits = read(loop.variables, token, jnp.zeros(rows, jnp.int32))
        return write(loop._replace(variables=variables), logits)

    def is_running(loop: _Loop) -> Array:
        return (loop.number < count) & jnp.any(loop.alive)

    # the mask is 1 after the end of a text, too, because those logits are not used
    mask = jnp.concatenate([real, jnp.ones((rows, count), bool)], axis=1).astype(jnp.int32)
    last = jnp.max(jnp.where(real, jnp.arange(length), 0), axis=1)
    empty = variables._replace(stats={**variables.stats, CACHE: {}})
    prefilled, logits = read(empty, jnp.asarray(batch["input_ids"]), last)
    zeros = jnp.zeros((rows, count), jnp.int32)
    start = _Loop(jnp.int32(0), prefilled, zeros, zeros, jnp.ones(rows, bool))
    end = jax.lax.while_loop(is_running, advance, write(start, logits))
    return jax.lax.stop_gradient(Generated(end.ids, end.mask))


def draw(logits: Array, keys: Array, sampling: Sampling) -> Array:
    """Draw a token for each row, int32 [batch].

    Args:
      logits: [batch, vocabulary].
      keys: [batch].
      sampling: `temperature` and `top_p` are used.

    >>> draw(jnp.array([[0.0, 3.0]]), jax.random.split(jax.random.key(0), 1), Sampling(1, 0.0))
    Array([1], dtype=int32)
    """
    best = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    temperature = jnp.asarray(sampling.temperature, jnp.float32)
    if is_number(sampling.temperature) and sampling.temperature == 0:
        return best
    scaled = logits / jnp.where(temperature > 0, temperature, 1.0)
    if not (is_number(sampling.top_p) and sampling.top_p == 1):
        scaled = jnp.where(_nucleus(scaled, sampling.top_p), scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled).astype(jnp.int32)
    return jnp.where(temperature > 0, drawn, best)


def _nucleus(logits: Array, top_p: Any) -> Array:
    """Return True for the most probable tokens, at least one, of total probability `top_p`."""
    ordered = -jnp.sort(-logits, axis=-1)
    p = jax.nn.softmax(ordered, axis=-1)
    inside = jnp.cumsum(p, axis=-1) - p < top_p
    return logits >= jnp.min(jnp.where(inside, ordered, jnp.inf), axis=-1, keepdims=True)


def _apply(model: Model, variables: Variables, tokens: Batch) -> tuple[Mapping[str, Array], PyTree]:
    outputs, stats = model.apply(variables, tokens, train=False)
    if STATES not in outputs.features or not stats[CACHE]:
        raise UserError("generate needs a decoder with a key-value cache: llama or gpt_neo")
    return outputs.features, stats


def _fold(keys: Array, number: Array) -> Array:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _check(sampling: Sampling) -> None:
    check_count("max_new_tokens", sampling.max_new_tokens)
    temperature, top_p = sampling.temperature, sampling.top_p
    if is_number(temperature) and not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}; it must be a finite number >= 0")
    if is_number(top_p) and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it must be in (0, 1]")
