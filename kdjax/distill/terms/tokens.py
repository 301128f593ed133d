"""Terms on the logits of examples, or on the logits of every token of a language model."""

from collections.abc import Callable

import jax.numpy as jnp

from kdjax import losses
from kdjax.distill.terms.spec import LossFn, Scalar, Teachers, TermSpec
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Outputs, Scalars

TOKENS = "token_logits"  # [batch, positions, vocabulary]
MASK = "token_mask"  # [batch, positions], > 0 where a token counts
TARGETS = "token_targets"  # int [batch, positions]

Pairs = tuple[tuple[str, str], ...]


def token_features(layer: str, *, targets: bool = False) -> Pairs:
    """Return the features that a term on this layer needs of both players.

    Args:
      layer: "" for the logits, or "token_logits".
      targets: add the labels of the tokens.

    Raises:
      UserError: another layer.
    """
    if layer not in ("", TOKENS):
        raise UserError(
            f"layer is {layer!r}; it must be '' (the logits) or {TOKENS!r}; of a DeiT that is "
            "trained also 'class_logits' or 'distillation_logits'"
        )
    names = (TOKENS, MASK, *((TARGETS,) if targets else ())) if layer else ()
    return tuple((name, name) for name in names)


def row_kind(layer: str) -> str:
    """Return the kind of rows that a term on this layer averages over.

    The rows of a language model are tokens; with a layer its terms average by sequence first.
    """
    return "sequence" if layer else "row"


def logits_at(outputs: Outputs, layer: str) -> Array:
    """Return the logits that a term on this layer compares."""
    return outputs.features[layer] if layer else outputs.logits


def example_means(values: Array, outputs: Outputs, layer: str) -> Array:
    """Average values of tokens over the real tokens of each example, 0 where it has none."""
    if not layer:
        return values
    real = outputs.features[MASK] > 0
    total = jnp.sum(jnp.where(real, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(real, axis=-1), 1)


def pairwise(loss: Callable[..., Array], layer: str = "") -> LossFn:
    """Return a loss function that compares with one teacher; scalars are the loss's keywords."""

    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        values = loss(logits_at(student, layer), logits_at(teachers[0], layer), **scalars)
        return example_means(values, student, layer)

    return loss_fn


def flat_rows(outputs: Outputs, batch: Batch, layer: str) -> tuple[Array, Array]:
    """Return all rows of a batch and their mask; a row is an example or a token."""
    if not layer:
        return outputs.logits, batch["mask"]
    logits = outputs.features[layer]
    real = (outputs.features[MASK] > 0) & (batch["mask"] > 0)[:, None]
    return logits.reshape(-1, logits.shape[-1]), real.reshape(-1)


def universal_logit_distance(skip_student_eos: bool = True) -> TermSpec:
    """ULD: sorted probabilities of the answers' tokens, for any vocabularies; default weight 1.5.

    `skip_student_eos`: leave out the student's last token.
    """
    return _answer_term(losses.universal_logit_distance, skip_student_eos, coupled=False)


def multi_level_transport(skip_student_eos: bool = True) -> TermSpec:
    """Multi-Level-OT: probabilities of the answers' frequent tokens; default weight 1.5.

    `skip_student_eos`: leave out the student's last token.
    """
    return _answer_term(losses.multi_level_transport, skip_student_eos, coupled=True)


def _answer_term(loss: Callable[..., Array], skip_student_eos: bool, *, coupled: bool) -> TermSpec:
    def loss_fn(student: Outputs, teachers: Teachers, batch: Batch, scalars: Scalars) -> Array:
        (s, s_labels), (t, t_labels) = (_shift(o) for o in (student, teachers[0]))
        return loss(s, t, s_labels, t_labels, skip_student_eos=skip_student_eos)

    layers = token_features(TOKENS, targets=True)
    weight = {"weight": Scalar(1.5)}
    rows = row_kind(TOKENS)
    return TermSpec(loss_fn, weight, layers=layers, match="free", coupled=coupled, rows=rows)


def _shift(outputs: Outputs) -> tuple[Array, Array]:
    """Return logits and labels, shifted so that a label is predicted one position before it."""
    logits, mask, targets = (outputs.features[name] for name in (TOKENS, MASK, TARGETS))
    labels = jnp.where(mask > 0, targets, -1)
    padded = jnp.pad(logits, ((0, 0), (0, 1), (0, 0)))
    return padded, jnp.pad(labels, ((0, 0), (1, 0)), constant_values=-1)
