"""A task: the functions that depend on the kind of the data, as one tuple.

To add a kind of data, add a file with a `Task` to this folder and a line to
`evaluation/__init__.py`; `experiment/build/data.py` lists the data sets of each kind.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kdjax import models
from kdjax.distill import CriticRole
from kdjax.errors import UserError
from kdjax.evaluation.text_samples import Writer
from kdjax.types import Array, Batch, Model, Outputs, Source, Spec, State

Scores = dict[str, np.ndarray]  # "<role>/<metric>", or a metric of two roles -> [members]
Bins = dict[str, dict[str, dict[str, list]]]  # role -> "before" | "after" -> reliability bins
Fitted = Mapping[str, Any]  # by role: temperatures, probes


class EvalSpec(NamedTuple):
    """The properties of the data and of the run that metrics depend on."""

    spec: Spec
    num_bins: int  # number of bins of the calibration errors
    batch_size: int  # in training; critics of representations score blocks of this size
    dataset: Any = None  # a `data.TextSet`, a `data.DetectionSet` or a `data.LanguageSet`
    critics: Mapping[str, CriticRole] = MappingProxyType({})


class Predictions(NamedTuple):
    """The collected outputs of all roles on a split, role -> [members, examples, ...].

    `critics`: the estimates of critics, for representations.
    """

    split: str
    outputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    critics: Mapping[str, np.ndarray] = MappingProxyType({})


Predict = Callable[[str], Predictions]  # from the name of a split


def _classifier(name: str) -> None:
    if name == "faster_rcnn":
        raise UserError(f"is {name!r}, but the data has no boxes; use a classifier")


def _reads_image(model: Model, entry: str) -> Model:
    if entry != "image":
        raise UserError(f"input is {entry!r}; data other than pairs has only image")
    return model


def _same_data(source: Source, dataset: Any, entry: str) -> tuple[Source, Any]:
    return source, dataset


class Task(NamedTuple):
    """The functions that a run needs for one kind of data.

    Attributes:
      metrics: spec -> metric of the validation split -> whether higher is better; `select.metric`
        is one of these, by default the first.
      pair_metrics: those of `metrics` that compare two roles: variants with another number of
        roles do not have them.
      validation_metrics: (evaluation, predictions, fitted) -> scores, during a run.
      test_metrics: the same after a run, with the bins of reliability diagrams.
      fit: (predict, final) -> quantities that are fitted before scoring, such as temperatures on
        the validation split; `final`: the run is over.
      collect: outputs -> the output that is collected, [batch, ...].
      hide_answers: removes the entries of a batch that networks must not read in evaluation.
      describe_network: (table, spec) -> the table with the sizes that the data determines, and the
        spec with the number of outputs as `num_classes`.
      check_network: refuses a network of another kind by its name.
      build_network: (name, num_classes, options) -> the network.
      read_entry: (model, entry) -> the model that reads this entry of a batch.
      select_entry: (source, dataset, entry) -> both as a role that reads this entry sees them.
      describe_data: dataset -> lines about it for the log and the report.
      estimates: (evaluation, outputs, state) -> the critics' estimates on a split.
      samples: (evaluation, split, outputs) -> role -> samples that the report draws, as JSON.
      write_texts: (dataset, role -> `Writer`) -> role -> texts that the report shows, as JSON.
      score_texts: (dataset, role -> `Writer` of each member) -> scores of the texts that networks
        write.
      panels: (evaluation, title -> split -> samples) -> pictures for the report.
      save_files: (dataset, folder) -> None: writes the files that a network needs besides weights.
      check_files: (dataset, folder) -> None: refuses a network whose files do not match the data.
      check_installed: raises an error if a library of the metrics is missing.
      unit: the name of examples in the speed of training ("images").
      rows_are_examples: False for a detector, whose rows are regions that it samples each time, and
        for a language model, whose rows are tokens: outputs cannot be cached, critics cannot
        compare them, `regions` may be shared.
      has_bounds: the constants of its networks are known, so `kdjax bounds` works.
      takes_corruptions: an example is one image, whose label holds when it is corrupted.
    """

    metrics: Callable[[Spec], Mapping[str, bool]]
    validation_metrics: Callable[[EvalSpec, Predictions, Fitted], Scores]
    test_metrics: Callable[[EvalSpec, Predictions, Fitted], tuple[Scores, Bins]]
    pair_metrics: tuple[str, ...] = ()
    fit: Callable[[Predict, bool], Fitted] = lambda predict, final: {}
    collect: Callable[[Outputs], Array] = lambda outputs: outputs.logits
    hide_answers: Callable[[Batch], Batch] = lambda batch: batch
    describe_network: Callable[[Mapping[str, Any], Spec], tuple[dict[str, Any], Spec]] = (
        lambda table, spec: (dict(table), spec)
    )
    check_network: Callable[[str], None] = _classifier
    build_network: Callable[..., Model] = models.build
    read_entry: Callable[[Model, str], Model] = _reads_image
    select_entry: Callable[[Source, Any, str], tuple[Source, Any]] = _same_data
    describe_data: Callable[[Any], tuple[str, ...]] = lambda dataset: ()
    estimates: Callable[[EvalSpec, Mapping[str, np.ndarray], Callable[[], State]], Scores] = (
        lambda evaluation, outputs, state: {}
    )
    samples: Callable[[EvalSpec, str, Mapping[str, np.ndarray]], dict[str, Any]] = (
        lambda evaluation, split, outputs: {}
    )
    write_texts: Callable[[Any, Mapping[str, Writer]], dict[str, Any]] | None = None
    score_texts: Callable[[Any, Mapping[str, Sequence[Writer]]], Scores] | None = None
    panels: Callable[[EvalSpec, Mapping[str, Any]], list[dict[str, Any]]] = (
        lambda evaluation, samples: []
    )
    save_files: Callable[[Any, Path], None] = lambda dataset, folder: None
    check_files: Callable[[Any, Path], None] = lambda dataset, folder: None
    check_installed: Callable[[], object] = lambda: None
    unit: str = "images"
    rows_are_examples: bool = True
    has_bounds: bool = False
    takes_corruptions: bool = False


def by_role(
    predictions: Predictions, metrics: Callable[[str, np.ndarray], Mapping[str, Any]]
) -> Scores:
    """Apply metrics to each role's outputs; return "<role>/<metric>" -> [members]."""
    return {
        f"{role}/{name}": value
        for role, outputs in predictions.outputs.items()
        for name, value in metrics(role, outputs).items()
    }
