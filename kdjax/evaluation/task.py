"""Everything that depends on the kind of the data, as one tuple of functions: a task.

To add a kind of data, write a file with a `Task` beside this one and a line in
`evaluation/__init__.py`; `experiment/build/data.py` says which data sets are of that kind.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kdjax.distill import CriticRole
from kdjax.errors import UserError
from kdjax.types import Array, Batch, Model, Outputs, Spec, State

Scores = dict[str, np.ndarray]  # "<role>/<metric>", or what two roles have in common -> [members]
Bins = dict[str, dict[str, dict[str, list]]]  # role -> "before" | "after" -> reliability bins
Fitted = Mapping[str, Any]  # by role: temperatures, probes


class EvalSpec(NamedTuple):
    """Everything about the data and the run that metrics need."""

    spec: Spec
    num_bins: int  # of the calibration errors
    batch_size: int  # of training; critics of representations score blocks of this size
    dataset: Any = None  # of text a `data.TextSet`, of detection a `data.DetectionSet`
    critics: Mapping[str, CriticRole] = MappingProxyType({})


class Predictions(NamedTuple):
    """The collected outputs of all roles on a split: by role [members, examples, ...].

    `critics`: the estimates of critics, if representations are evaluated.
    """

    split: str
    outputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    critics: Mapping[str, np.ndarray] = MappingProxyType({})


Predict = Callable[[str], Predictions]  # of a split


def _classifier(name: str) -> None:
    if name == "faster_rcnn":
        raise UserError(f"is {name!r}, but the data has no boxes; use a classifier")


def _reads_image(model: Model, entry: str) -> Model:
    if entry != "image":
        raise UserError(f"input is {entry!r}; only pairs have more than image")
    return model


class Task(NamedTuple):
    """The functions that a run needs for one kind of data.

    Attributes:
      metrics: spec -> metric of the validation split -> whether higher is better; a config may
        select by these, and the first is the default.
      validation_metrics: (evaluation, predictions, fitted) -> scores, during a run.
      test_metrics: the same at its end, and the bins of reliability diagrams.
      fit: (predict, final) -> what is fitted before scoring, such as temperatures on validation;
        `final`: the final scores follow.
      collect: which output of a network is collected, [batch, ...].
      hide_answers: removes from a prepared batch what networks must not see in evaluation.
      describe_network: (table, spec) -> the same for this data: sizes that follow from it filled
        in, and a spec whose `num_classes` is the number of outputs.
      check_network: refuses a network of another kind by its name.
      read_entry: (model, entry) -> the model that reads this entry of a batch.
      estimates: (evaluation, outputs, state) -> what critics measure of a split.
      samples: (evaluation, split, outputs) -> role -> samples that the report draws, as JSON.
      panels: (evaluation, title -> split -> samples) -> what the report draws.
      save_files: (dataset, folder) -> None: writes what a network needs beside its weights.
      check_files: (dataset, folder) -> None: refuses a network whose files beside its weights are
        not those of the data.
      check_installed: refuses to begin where the metrics' libraries are missing.
      unit: the name of its examples, for the speed of training.
      rows_are_examples: False of a detector, whose rows are regions that it draws anew each time:
        outputs cannot be cached, critics cannot compare them, `regions` may be shared.
      has_bounds: the constants of its networks are known, so that `kdjax bounds` works.
    """

    metrics: Callable[[Spec], Mapping[str, bool]]
    validation_metrics: Callable[[EvalSpec, Predictions, Fitted], Scores]
    test_metrics: Callable[[EvalSpec, Predictions, Fitted], tuple[Scores, Bins]]
    fit: Callable[[Predict, bool], Fitted] = lambda predict, final: {}
    collect: Callable[[Outputs], Array] = lambda outputs: outputs.logits
    hide_answers: Callable[[Batch], Batch] = lambda batch: batch
    describe_network: Callable[[Mapping[str, Any], Spec], tuple[dict[str, Any], Spec]] = (
        lambda table, spec: (dict(table), spec)
    )
    check_network: Callable[[str], None] = _classifier
    read_entry: Callable[[Model, str], Model] = _reads_image
    estimates: Callable[[EvalSpec, Mapping[str, np.ndarray], Callable[[], State]], Scores] = (
        lambda evaluation, outputs, state: {}
    )
    samples: Callable[[EvalSpec, str, Mapping[str, np.ndarray]], dict[str, Any]] = (
        lambda evaluation, split, outputs: {}
    )
    panels: Callable[[EvalSpec, Mapping[str, Any]], list[dict[str, Any]]] = (
        lambda evaluation, samples: []
    )
    save_files: Callable[[Any, Path], None] = lambda dataset, folder: None
    check_files: Callable[[Any, Path], None] = lambda dataset, folder: None
    check_installed: Callable[[], object] = lambda: None
    unit: str = "images"
    rows_are_examples: bool = True
    has_bounds: bool = False


def by_role(
    predictions: Predictions, metrics: Callable[[str, np.ndarray], Mapping[str, Any]]
) -> Scores:
    """Return "<role>/<metric>" -> [members] from the metrics of each role's outputs."""
    return {
        f"{role}/{name}": value
        for role, outputs in predictions.outputs.items()
        for name, value in metrics(role, outputs).items()
    }
