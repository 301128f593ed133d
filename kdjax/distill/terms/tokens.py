"""Where a term on logits looks: at one row an example, or at every token of a language model."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from kdjax.distill.terms.spec import Value
from kdjax.types import Array, Batch, Outputs, Scalars, UserError

TOKENS = "token_logits"  # [batch, positions, vocabulary]
MASK = "token_mask"  # [batch, positions], > 0 where a token counts
TARGETS = "token_targets"  # int [batch, positions]

Pairs = tuple[tuple[str, str], ...]


def looked_at(layer: str, *, targets: bool = False) -> Pairs:
    """The features that a term on this layer needs of both players.

    Args:
      layer: "" for the logits, or "token_logits".
      targets: whether it compares with labels.

    Raises:
      UserError: another layer.
    """
    if layer not in ("", TOKENS):
        raise UserError(f"layer is {layer!r}; it must be '' (the logits) or {TOKENS!r}")
    names = (TOKENS, MASK, *((TARGETS,) if targets else ())) if layer else ()
    return tuple((name, name) for name in names)


def logits_at(outputs: Outputs, layer: str) -> Array:
    """The logits that a term on this layer compares."""
    return outputs.features[layer] if layer else outputs.logits


def example_means(values: Array, outputs: Outputs, layer: str) -> Array:
    """Average values of tokens over the real tokens of each example, 0 where it has none."""
    if not layer:
        return values
    real = outputs.features[MASK] > 0
    total = jnp.sum(jnp.where(real, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(real, axis=-1), 1)


def pairwise(loss: Callable[..., Array], layer: str = "") -> Value:
    """Compare a player with one peer; every scalar is a keyword of the loss."""

    def value(own: Outputs, peers: Sequence[Outputs], batch: Batch, scalars: Scalars) -> Array:
        found = loss(logits_at(own, layer), logits_at(peers[0], layer), **scalars)
        return example_means(found, own, layer)

    return value


def flat_rows(outputs: Outputs, batch: Batch, layer: str) -> tuple[Array, Array]:
    """All rows of a batch and which are real: of examples, or of their tokens, one a row."""
    if not layer:
        return outputs.logits, batch["mask"]
    logits = outputs.features[layer]
    real = (outputs.features[MASK] > 0) & (batch["mask"] > 0)[:, None]
    return logits.reshape(-1, logits.shape[-1]), real.reshape(-1)
