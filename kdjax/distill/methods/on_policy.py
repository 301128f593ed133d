"""On-policy distillation: on a share of the batches a player completes the texts itself.

    method = on_policy(co_train(players), "student", model, Sampling(32))

GKD: the terms then compare the players on tokens that the student has drawn (Agarwal et al. 2023,
arXiv 2306.13649). No gradient flows through the sampling.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kdjax.distill.methods.co_train import role_key
from kdjax.distill.methods.collectives import local_masked_mean
from kdjax.errors import UserError, check_entries
from kdjax.models import Sampling, generate, strip_wrappers
from kdjax.types import Array, Batch, Method, Model, Variables

_ENTRIES = ("input_ids", "attention_mask", "label", "id")


def on_policy(
    method: Method, role: str, model: Model, sampling: Sampling, *, axis_name: str | None = None
) -> Method:
    """Replace the ends of texts by the player's own tokens, on a share of the batches.

    hparams[role]["on_policy"] has "share", the probability of such a batch, and "temperature", that
    of the sampling. Both may be traced. The new tokens of a text depend only on the step's key and
    on the text's "id".

    A text ends as `complete` describes. A term with labels, such as `ce`, would then train on the
    player's own tokens; GKD has none.

    Args:
      method: on batches of a language model: "input_ids", "attention_mask" and "label" int32
        [batch, length], padded at the right; "id" [batch]; perhaps "segment_ids".
      role: the player that draws.
      model: its decoder, without adapters.
      sampling: number of new tokens, `top_p` and end token; its temperature is not read.
      axis_name: as in `co_train`.

    Returns:
      A Method, with the metric `<role>/on_policy`, the share of the texts with own tokens.

    Raises:
      UserError: by the loss, a batch without such entries, or texts that are not longer than the
        new tokens.
    """

    def loss(params, stats, batch: Batch, hparams, key: Array, step: Array | int = 0):
        check_entries("on-policy distillation", _ENTRIES, batch)
        numbers = hparams[role]["on_policy"]
        coin_key, text_key = jax.random.split(role_key(key, f"{role}/on_policy"))
        replaces = jax.random.bernoulli(coin_key, numbers["share"])
        frozen = jax.lax.stop_gradient(strip_wrappers(Variables(params[role], stats[role])))
        rule = sampling._replace(temperature=numbers["temperature"])
        texts = {name: jnp.asarray(batch[name]) for name in _texts(batch)}
        keys = jax.vmap(lambda number: jax.random.fold_in(text_key, number))(batch["id"])

        def draw(texts: Batch) -> tuple[Batch, Array]:
            return complete(model, frozen, texts, keys, rule)

        def keep(texts: Batch) -> tuple[Batch, Array]:
            return texts, jnp.zeros(keys.shape, bool)

        texts, drawn = jax.lax.cond(replaces, draw, keep, texts)
        total, aux = method.loss(params, stats, {**batch, **texts}, hparams, key, step)
        mask = batch.get("mask", jnp.ones(keys.shape, jnp.float32))
        share = local_masked_mean(drawn.astype(jnp.float32), mask, axis_name)
        return total, aux._replace(metrics={**aux.metrics, f"{role}/on_policy": share})

    return Method(method.init, loss, method.trains)


def complete(
    model: Model, variables: Variables, texts: Batch, keys: Array, sampling: Sampling
) -> tuple[Batch, Array]:
    """Replace the end of each text by tokens that a decoder draws.

    A text is cut before the first predicted token among its last `max_new_tokens` tokens, so a
    prompt is never cut. Labels of tokens before the cut become -1, because those tokens are not the
    decoder's. In a row of several texts, the one with the cut is continued. A row without room for
    `max_new_tokens` after the cut stays unchanged.

    Args:
      model: a decoder.
      variables: of the decoder.
      texts: entries of a batch as in `on_policy`.
      keys: [batch].
      sampling: the rule by which tokens are drawn.

    Returns:
      The entries, and which rows have new tokens, bool [batch].

    Raises:
      UserError: rows that are not longer than the new tokens.
    """
    ids, label, count = texts["input_ids"], texts["label"], sampling.max_new_tokens
    room = ids.shape[1] - count
    if room < 1:
        raise UserError(
            f"on_policy.max_new_tokens is {count}, but the texts have {ids.shape[1]} tokens: lower "
            "it or raise data.max_length"
        )
    positions = jnp.arange(ids.shape[1])
    real = texts["attention_mask"] > 0
    segments = texts.get("segment_ids", real.astype(jnp.int32))
    can_cut = (label >= 0) & (positions >= jnp.sum(real, axis=1, keepdims=True) - count - 1)
    cut = jnp.argmax(can_cut, axis=1)[:, None] + 1
    is_changed = jnp.any(can_cut, axis=1) & (cut[:, 0] <= room)
    segment = jnp.take_along_axis(segments, cut - 1, axis=1)
    prompt = (positions < cut) & (segments == segment)
    prompts = {"input_ids": ids[:, :room], "attention_mask": prompt[:, :room].astype(jnp.int32)}
    new = generate(model, variables, prompts, keys, sampling)

    def select(x: Array, number: Array, rest: Any) -> Array:
        """Return entry `number` of each row, and `rest` where there is no such new token."""
        at = jnp.clip(number, 0, count - 1)
        inside = (number == at) & (jnp.take_along_axis(new.mask, at, axis=1) > 0)
        return jnp.where(inside, jnp.take_along_axis(x, at, axis=1), rest)

    number = positions - cut  # index of the new token at each position
    completed = {
        "input_ids": select(new.ids, number, 0),
        "attention_mask": select(new.mask, number, 0),
        "segment_ids": select(jnp.broadcast_to(segment, new.ids.shape), number, 0),
    }
    entries = {k: jnp.where(number < 0, texts[k], x) for k, x in completed.items() if k in texts}
    entries["label"] = select(new.ids, number + 1, -1)
    changed = {
        k: jnp.where(is_changed[:, None], x, texts[k]).astype(texts[k].dtype)
        for k, x in entries.items()
    }
    return changed, is_changed


def _texts(batch: Batch) -> list[str]:
    return [name for name in (*_ENTRIES[:3], "segment_ids") if name in batch]
