"""Units, decimals and titles of the metrics in a report."""

import math
from typing import Any, NamedTuple

from kdjax.report.statistics import Mean


class Column(NamedTuple):
    """The format of a metric: `scale` times the value, with `digits` decimals.

    `sign` is +1 where higher is better, -1 where lower is better, 0 where no value is marked as
    best. Calibration errors have 0: even a network that guesses can have a small one.
    """

    metric: str
    title: str
    scale: float
    digits: int
    sign: int


COLUMNS = (
    Column("accuracy", "accuracy %", 100.0, 2, +1),
    Column("probe_accuracy", "probe accuracy %", 100.0, 2, +1),
    Column("ap50", "AP50 %", 100.0, 2, +1),
    Column("ap", "AP %", 100.0, 2, +1),
    Column("ap75", "AP75 %", 100.0, 2, +1),
    Column("ap_small", "AP small %", 100.0, 2, +1),
    Column("ap_medium", "AP medium %", 100.0, 2, +1),
    Column("ap_large", "AP large %", 100.0, 2, +1),
    Column("f1", "F1 %", 100.0, 2, +1),
    Column("macro_f1", "macro F1 %", 100.0, 2, +1),
    Column("exact_match", "exact match %", 100.0, 2, +1),
    Column("matthews", "Matthews", 1.0, 3, +1),
    Column("pearson", "Pearson", 1.0, 3, +1),
    Column("spearman", "Spearman", 1.0, 3, +1),
    Column("mse", "MSE", 1.0, 3, -1),
    Column("bits_per_byte", "bits/byte", 1.0, 3, -1),
    Column("perplexity", "perplexity", 1.0, 2, -1),
    Column("rouge_l", "ROUGE-L %", 100.0, 2, +1),
    Column("ece", "ECE %", 100.0, 2, 0),
    Column("detection_ece", "detection ECE %", 100.0, 2, 0),
    Column("nll", "NLL", 1.0, 3, -1),
    Column("brier", "Brier", 1.0, 3, -1),
    Column("temperature", "fitted T", 1.0, 2, 0),
    Column("ece_calibrated", "ECE % at T", 100.0, 2, 0),
)
_OTHER_COLUMNS = (  # in a table only where the metric decides
    Column("agreement", "agreement", 1.0, 4, +1),
    Column("nll_calibrated", "NLL at T", 1.0, 3, -1),
    Column("brier_calibrated", "Brier at T", 1.0, 3, -1),
    Column("adaptive_ece", "adaptive ECE %", 100.0, 2, 0),
    Column("classwise_ece", "class-wise ECE %", 100.0, 2, 0),
    Column("maximum_ce", "maximum CE %", 100.0, 2, 0),
    Column("entropy", "entropy", 1.0, 3, 0),
)


def column_of(metric: str, *, sign: int = 0) -> Column:
    """Return the format of a metric; an unknown one has its own name, four decimals and `sign`."""
    columns = {column.metric: column for column in (*COLUMNS, *_OTHER_COLUMNS)}
    return columns.get(metric, Column(metric, metric, 1.0, 4, sign))


def format_mean(value: Mean, column: Column) -> str:
    """Format as "96.12 ± 0.31", without sd for one seed, and as "-" without finite values."""
    if value.n == 0:
        return "-"
    numbers = [value.mean] if math.isnan(value.sd) else [value.mean, value.sd]
    return " ± ".join(_format_number(column.scale * x, column.digits) for x in numbers)


def _format_number(value: float, digits: int) -> str:
    """Format with fixed digits; numbers of a collapsed network, from 1e4 on, as 9.0e+05."""
    return f"{value:.{digits}f}" if abs(value) < 1e4 else f"{value:.1e}"


def format_value(value: Any) -> str:
    """Format a swept value: 0.01, 4, adamw."""
    return f"{value:g}" if isinstance(value, float) else str(value)


# header of a column -> its meaning, for the glossary of a page
MEANINGS = {
    "accuracy %": "share of examples whose most probable class is right",
    "ECE %": "expected calibration error: mean distance of confidence and accuracy over bins",
    "NLL": "negative log-likelihood of the labels, in nats; lower is better",
    "Brier": "squared distance of the probabilities to the label; lower is better",
    "fitted T": "temperature that minimises the NLL on the validation split",
    "ECE % at T": "expected calibration error after division of the logits by the fitted T",
    "seeds": 'seeds in the mean; "4 of 5" if one of them diverged',
    "pairs": "seeds that both variants have",
    "higher/equal/lower": "number of seeds in which the first column is higher, equal or lower",
    "minimises": "the loss of the role, a sum of its terms; T is a temperature",
    "weights from": "origin of initial weights that are not random",
    "bits/byte": "negative log-likelihood per byte of the texts, in bits; lower is better",
    "perplexity": "exp of the negative log-likelihood per token; lower is better",
    "ROUGE-L %": "F1 of the words that completions share with the references, in order",
    "probe accuracy %": "accuracy of linear probes of the latent factors, on frozen features",
    "AP %": "mean average precision over IoU .50 to .95",
    "AP50 %": "average precision at IoU .5",
    "AP75 %": "average precision at IoU .75",
    "detection ECE %": "expected calibration error of the scores of detections at IoU .5",
}
