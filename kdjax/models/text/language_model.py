"""Language models: decoders with one output row for each token."""

import jax.numpy as jnp

from kdjax.errors import check_entries
from kdjax.types import Array, Batch, Model, Outputs, PyTree, Variables

_ENTRIES = ("input_ids", "attention_mask", "segment_ids", "label")


def as_language_model(model: Model) -> Model:
    """Make a model whose output rows are tokens, so that terms average over the real tokens.

    The batch has "input_ids" and "attention_mask", int32 [batch, length]. Optional entries are
    "segment_ids" (of texts that share a row) and "label" (the next token at each position;
    negative: no loss), int32 [batch, length], and "mask" [batch].

    Args:
      model: a decoder with logits [batch, length, vocabulary].

    Returns:
      A Model with logits [batch * length, vocabulary]. The features "row_label" int32 and
      "row_mask" float32 [batch * length] replace label and mask of the batch. The features
      "token_logits" [batch, length, vocabulary], "token_mask" and "token_targets" [batch, length]
      are the same by sequence. The features "hidden_0", ... are [batch * length, width]; the others
      are the decoder's.

    Raises:
      UserError: (by init and apply) the batch lacks an entry.
    """

    def tokens(batch: Batch) -> Batch:
        check_entries("a language model", ("input_ids", "attention_mask"), batch)
        return {name: batch[name] for name in _ENTRIES[:3] if name in batch}

    def init(key: Array, batch: Batch) -> Variables:
        return model.init(key, tokens(batch))

    def apply(
        variables: Variables, batch: Batch, *, train: bool, key: Array | None = None
    ) -> tuple[Outputs, PyTree]:
        outputs, stats = model.apply(variables, tokens(batch), train=train, key=key)
        label = jnp.asarray(batch.get("label", jnp.full(batch["input_ids"].shape, -1)))
        target = jnp.maximum(label, 0)
        real = (label >= 0).astype(jnp.float32)
        if "mask" in batch:
            real *= batch["mask"][:, None]
        features = {
            **{name: _by_row(name, x) for name, x in outputs.features.items()},
            "token_logits": outputs.logits,
            "token_mask": real,
            "token_targets": target,
            "row_label": target.reshape(-1),
            "row_mask": real.reshape(-1),
        }
        rows = outputs.logits.reshape(-1, outputs.logits.shape[-1])
        return Outputs(rows, features), stats

    return Model(init, apply)


def _by_row(name: str, x: Array) -> Array:
    """Return hidden states with a row for each token, as the logits have."""
    return x.reshape(-1, x.shape[-1]) if name.startswith("hidden_") else x


def read_tokenizer_entry(model: Model, entry: str) -> Model:
    """Make a model read "<entry>_input_ids", ... of a batch: texts in another tokenizer's tokens.

    Raises:
      UserError: (by init and apply) the batch lacks these entries.
    """

    def rename_entries(batch: Batch) -> Batch:
        names = {name: f"{entry}_{name}" for name in _ENTRIES}
        check_entries(f"input {entry}", [*names.values()][:2], batch)
        own = {name: x for name, x in batch.items() if name not in names}
        return {**own, **{name: batch[other] for name, other in names.items() if other in batch}}

    return Model(
        lambda key, batch: model.init(key, rename_entries(batch)),
        lambda variables, batch, *, train, key=None: model.apply(
            variables, rename_entries(batch), train=train, key=key
        ),
    )
