"""Rank classifiers: a language model ranks the choices of an example by their probability."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from kdjax.errors import UserError, check_entries
from kdjax.models.text.causal import TABLE
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

_EMPTY_SCORE = -1e9  # of a choice without tokens; finite, so that softmax and KL stay finite


class PromptFormat(NamedTuple):
    """Converts a prompt with choices to the input of a language model.

    `rewrite` returns a batch whose logits are [batch, choices, tokens, vocabulary]. Features whose
    name starts with `per_choice` then have leading axes [batch, choices].
    """

    rewrite: Callable[[Batch], Batch]
    per_choice: str


def with_choices(
    model: Model, prompt_format: PromptFormat, *, num_choices: int | None = None
) -> Model:
    """Make a classifier of a language model; the logit of a choice is its log-probability.

        logit_k = sum over real tokens d of log p(choice_kd | prompt, choice_k1 ... choice_k(d-1))

    A choice without real tokens gets -1e9. The batch has "input_ids" and "attention_mask" int32
    [batch, length] (the prompt), "choice_ids" and "choice_mask" int32 [batch, choices, tokens] and
    "label" [batch], the index of the gold choice (by default 0). Variables are the language
    model's.

    Args:
      model: a language model with logits of tokens.
      prompt_format: `ENCODE_ONCE` for an encoder-decoder (T5), `REPEAT_PROMPT` for a decoder
        (GPT-Neo).
      num_choices: number of choices that every batch must have; None is any number.

    Returns:
      A Model with logits [batch, choices]. Features of the gold choice, predicted from its earlier
      tokens: "token_logits" [batch, tokens, vocabulary], "token_mask" float32 and "token_targets"
      int32 [batch, tokens]; then the model's features, for the gold choice where choices differ.

    Raises:
      UserError: (by init and apply) the batch lacks an entry or has another number of choices.
    """

    def check(batch: Batch) -> None:
        entries = ("input_ids", "attention_mask", "choice_ids", "choice_mask")
        check_entries("a rank classifier", entries, batch)
        count = batch["choice_ids"].shape[1]
        if num_choices not in (None, count):
            raise UserError(
                f"the network is built for {num_choices} choices, but the batch has {count}"
            )

    def init(key: Array, batch: Batch) -> Variables:
        check(batch)
        shapes = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in batch.items()}
        return model.init(key, jax.eval_shape(prompt_format.rewrite, shapes))

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        check(batch)
        batch = {name: jnp.asarray(x) for name, x in batch.items()}
        targets, real = batch["choice_ids"], batch["choice_mask"] > 0
        outputs, stats = model.apply(variables, prompt_format.rewrite(batch), train=train, key=key)
        scores = jnp.where(real, _log_probability(outputs.logits, targets), 0).sum(-1)
        scores = jnp.where(real.any(-1), scores, _EMPTY_SCORE)
        gold = batch.get("label", jnp.zeros(targets.shape[0], jnp.int32)).astype(jnp.int32)

        def select_gold(x: Array) -> Array:
            index = gold.reshape(-1, *(1,) * (x.ndim - 1))
            return jnp.take_along_axis(x, index, axis=1, mode="clip")[:, 0]

        features = {
            name: select_gold(x)
            if name.startswith(prompt_format.per_choice) and name != TABLE
            else x
            for name, x in outputs.features.items()
        }
        features["token_logits"] = select_gold(outputs.logits)
        features["token_mask"] = select_gold(real.astype(jnp.float32))
        features["token_targets"] = select_gold(targets)
        return Outputs(scores, features), stats

    return Model(init, apply)


def _log_probability(logits: Array, targets: Array) -> Array:
    """Return the log-probabilities [...] of targets [...] under logits [..., vocabulary]."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _to_decoder(batch: Batch) -> Batch:
    """Let the encoder read the prompt, and the decoder each choice after T5's start token, id 0."""
    shifted = jnp.pad(batch["choice_ids"], ((0, 0), (0, 0), (1, 0)))[..., :-1]
    prompt = {key: batch[key] for key in ("input_ids", "attention_mask")}
    return {**prompt, "decoder_input_ids": shifted}


def _after_prompt(batch: Batch) -> Batch:
    """Append every choice to the prompt; padding between the two is masked, not removed.

    The decoder counts real tokens only, so that positions and windows ignore the padding.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    shape, (length, count) = batch["choice_ids"].shape, (ids.shape[1], batch["choice_ids"].shape[2])

    def join(prompt: Array, choice: Array) -> Array:
        repeated = jnp.broadcast_to(prompt[:, None], (*shape[:2], length))
        return jnp.concatenate([repeated, choice], axis=2)

    # the logits of a token are at the token before it; for the first, the prompt's last token
    last = jnp.max(jnp.where(mask > 0, jnp.arange(length), 0), axis=1)
    first = jnp.broadcast_to(last[:, None, None], (*shape[:2], 1))
    rest = jnp.broadcast_to(length + jnp.arange(count - 1), (*shape[:2], count - 1))
    return {
        "input_ids": join(ids, batch["choice_ids"]),
        "attention_mask": join(mask, batch["choice_mask"]),
        "logit_positions": jnp.concatenate([first, rest], axis=2),
    }


ENCODE_ONCE = PromptFormat(_to_decoder, "decoder_")
REPEAT_PROMPT = PromptFormat(_after_prompt, "")
