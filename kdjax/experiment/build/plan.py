"""The types of a built run, the result of `build`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kdjax.data import LanguageSet
from kdjax.distill import CriticRole, Player
from kdjax.evaluation import EvalSpec, Task
from kdjax.evaluation.selection import Selection
from kdjax.experiment.config.schema import Config
from kdjax.train.step import Optimizer, Prepare
from kdjax.types import Batch, Method, Model, Source, Variables


class TaskData(NamedTuple):
    """A data set and the functions for its kind."""

    source: Source
    task: Task
    dataset: Any = None  # read by the task's functions: tokenizer and groups, or photographs

    @property
    def second(self) -> LanguageSet | None:
        """The texts in the tokens of a second tokenizer."""
        return self.dataset.second if isinstance(self.dataset, LanguageSet) else None

    def read_by(self, entry: str) -> "TaskData":
        """Return the data as a role that reads this entry of a batch sees it."""
        source, dataset = self.task.select_entry(self.source, self.dataset, entry)
        return self._replace(source=source, dataset=dataset)


class InitialWeights(NamedTuple):
    """Initial variables of a role; `stacked`: with a leading axis of members."""

    variables: Variables
    stacked: bool


class Variant(NamedTuple):
    """One variant: the parts that are compiled once, and the members over which they are mapped."""

    name: str
    config: Config
    players: Mapping[str, Player]
    critics: Mapping[str, CriticRole]  # roles without logits, which are not evaluated
    method: Callable[[str | None], Method]  # from the axis name
    optimizers: Mapping[str, Optimizer]
    members: tuple[Mapping[str, Any], ...]  # swept values, always with "seed"
    hparams: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, int]  # by role
    shapes: Mapping[str, Variables]  # of all variables, by role
    initial_variables: Mapping[str, Variables]  # roles that start from a file
    new_heads: tuple[str, ...]  # roles whose file has no head for the task; random by member
    from_variant: Mapping[str, str]  # roles that start from an earlier variant
    backbones: Mapping[str, Variables]  # of detectors, whose heads are random by member
    class_means: Mapping[str, tuple[Model, str]]  # of frozen roles: network, layer
    cached: Mapping[str, tuple[Model, tuple[str, ...]]]  # frozen roles with a cache, its layers


class Experiment(NamedTuple):
    """A config as functions and numbers."""

    config: Config
    data: TaskData
    prepare_train: Prepare
    prepare_eval: Callable[[Batch], Batch]
    variants: tuple[Variant, ...]
    selection: Selection

    @property
    def source(self) -> Source:
        """The data set."""
        return self.data.source

    @property
    def task(self) -> Task:
        """The functions for the kind of the data."""
        return self.data.task

    def evaluation(self, variant: Variant | None = None) -> EvalSpec:
        """Return the specification of the metrics, with the critics of a variant."""
        return EvalSpec(
            spec=self.source.spec,
            num_bins=self.config.ece_bins,
            batch_size=self.config.batch_size,
            dataset=self.data.dataset,
            critics={} if variant is None else variant.critics,
        )
