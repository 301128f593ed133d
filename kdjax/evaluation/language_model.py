"""Language models: likelihood of texts by token and by byte, and calibration of the next token."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kdjax import calibration, models
from kdjax.data import SECOND, LanguageSet, check_tokenizer, has_tokenizer, save_tokenizer
from kdjax.errors import UserError
from kdjax.evaluation import rouge, text
from kdjax.evaluation.task import Bins, EvalSpec, Fitted, Predictions, Scores, Task, by_role
from kdjax.evaluation.text_samples import write_texts
from kdjax.types import Array, Model, Outputs, Source

METRICS = {  # whether higher is better
    "bits_per_byte": False,
    "nll": False,
    "perplexity": False,
    "accuracy": True,
    "agreement": True,
    "ece": False,
}


class TokenScores(NamedTuple):
    """Scores of the next token at every position, [..., length]; `target` is -1 where none is."""

    nll: Any  # nats
    confidence: Any
    prediction: Any
    target: Any


def collect(outputs: Outputs) -> Array:
    """Return the `TokenScores` of a batch side by side, [batch, 4 * length] float32.

    Ids of tokens are exact in float32 up to 2^24.
    """
    logits, target = (outputs.features[name] for name in ("token_logits", "token_targets"))
    log_p = jax.nn.log_softmax(logits)
    scores = TokenScores(
        -jnp.take_along_axis(log_p, target[..., None], axis=-1)[..., 0],
        jnp.exp(jnp.max(log_p, axis=-1)),
        jnp.argmax(logits, axis=-1),
        jnp.where(outputs.features["token_mask"] > 0, target, -1),
    )
    return jnp.concatenate([x.astype(jnp.float32) for x in scores], axis=-1)


def token_scores(collected: np.ndarray) -> TokenScores:
    """Return the scores of predicted tokens, [members, tokens], of [members, rows, 4 * length]."""
    parts = TokenScores(*np.split(np.asarray(collected), 4, axis=-1))
    real = parts.target[0] >= 0
    return TokenScores(*(part[:, real] for part in parts))


def validation_metrics(evaluation: EvalSpec, predictions: Predictions, fitted: Fitted) -> Scores:
    """Return the metrics of each role, and the agreement of two roles."""
    return test_metrics(evaluation, predictions, fitted)[0]


def test_metrics(
    evaluation: EvalSpec, predictions: Predictions, fitted: Fitted
) -> tuple[Scores, Bins]:
    """Return the metrics of each role, the agreement of two roles, and reliability bins.

    NLL and perplexity are per token, the bits per byte of the predicted texts, ends included; only
    the latter compares networks with different tokenizers. The ECE is of the most probable token.
    """
    dataset: LanguageSet = evaluation.dataset
    num_bytes = dataset.num_bytes[predictions.split]
    scores = {role: token_scores(each) for role, each in predictions.outputs.items()}
    bins: Bins = {}

    def metrics(role: str, collected: np.ndarray) -> Mapping[str, Any]:
        del collected
        tokens = scores[role]
        nll = np.mean(tokens.nll, axis=-1, dtype=np.float64)
        correct = tokens.prediction == tokens.target
        diagrams = [
            calibration.bin_confidences(*each, num_bins=evaluation.num_bins)
            for each in zip(tokens.confidence, correct, strict=True)
        ]
        bins[role] = {
            "before": {
                name: [np.asarray(getattr(diagram, name)).tolist() for diagram in diagrams]
                for name in calibration.Reliability._fields
            }
        }
        return {
            "bits_per_byte": nll * tokens.nll.shape[-1] / (num_bytes * math.log(2)),
            "nll": nll,
            "perplexity": np.exp(nll),
            "accuracy": np.mean(correct, axis=-1),
            "ece": np.array([float(calibration.weighted_gap(diagram)) for diagram in diagrams]),
        }

    return {**_agreement(scores), **by_role(predictions, metrics)}, bins


def _agreement(scores: Mapping[str, TokenScores]) -> dict[str, np.ndarray]:
    """Return the share of tokens for which two roles predict the same one; {} unless two.

    Roles with different tokenizers have none.
    """
    if len(scores) != 2:
        return {}
    first, second = scores.values()
    if not np.array_equal(first.target[0], second.target[0]):
        return {}
    return {"agreement": np.mean(first.prediction == second.prediction, axis=-1)}


def select_entry(source: Source, dataset: LanguageSet, entry: str) -> tuple[Source, LanguageSet]:
    """Return the data as a role with this `input` reads it."""
    if entry != SECOND or dataset.second is None:
        return source, dataset
    return dataset.second.source, dataset.second


def read_entry(model: Model, entry: str) -> Model:
    """Return the model that reads the tokens of one of the tokenizers."""
    if entry == SECOND:
        return models.read_tokenizer_entry(model, SECOND)
    if entry != "image":
        raise UserError(f"input is {entry!r}; texts have only {SECOND}, of the second tokenizer")
    return model


def save_files(dataset: LanguageSet, folder: Path) -> None:
    """Write the tokenizer beside a network."""
    save_tokenizer(dataset.tokenizer, folder)


def check_files(dataset: LanguageSet, folder: Path) -> None:
    """Refuse a network that was trained with another tokenizer, or whose tokenizer is unknown."""
    if dataset.is_trained and not has_tokenizer(folder):
        raise UserError(
            f"{folder} holds no tokenizer; set data.tokenizer to that of the network's texts"
        )
    check_tokenizer(dataset.tokenizer, folder)


TASK = Task(
    metrics=lambda spec: METRICS,
    pair_metrics=("agreement",),
    validation_metrics=validation_metrics,
    test_metrics=test_metrics,
    collect=collect,
    write_texts=write_texts,
    score_texts=rouge.score_texts,
    describe_network=text.describe_network,
    check_network=lambda name: None,  # `build_network` checks it
    build_network=models.build_language_model,
    read_entry=read_entry,
    select_entry=select_entry,
    describe_data=lambda dataset: dataset.summary,
    save_files=save_files,
    check_files=check_files,
    unit="sequences",
    rows_are_examples=False,
)
