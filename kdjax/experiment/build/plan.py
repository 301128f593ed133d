"""The types of a built run: what `build` returns and everything after it reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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
    dataset: Any = None  # what the functions of the task read: tokenizer and groups, photographs


class InitialWeights(NamedTuple):
    """Variables of a role that are not drawn; `stacked`: they have a first axis of members."""

    variables: Variables
    stacked: bool


class Variant(NamedTuple):
    """One static program of a run: what is compiled once, and the members it is mapped over."""

    name: str
    config: Config
    players: Mapping[str, Player]
    critics: Mapping[str, CriticRole]  # roles without logits, which are not evaluated
    method: Callable[[str | None], Method]  # of the axis name
    optimizers: Mapping[str, Optimizer]
    members: tuple[Mapping[str, Any], ...]  # swept values, "seed" always among them
    hparams: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, int]  # by role
    initial_variables: Mapping[str, Variables]  # roles that start from a file
    new_heads: tuple[str, ...]  # those whose file has no head for the task: each member draws one
    from_variant: Mapping[str, str]  # roles that start from an earlier variant
    backbones: Mapping[str, Variables]  # of detectors whose heads each member draws
    class_means: Mapping[str, tuple[Model, str]]  # of frozen roles: network, layer
    cached: Mapping[str, tuple[Model, tuple[str, ...]]]  # frozen roles with a cache, its layers


class Experiment(NamedTuple):
    """Everything that a config says, as functions and numbers."""

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
        """The functions for its kind."""
        return self.data.task

    def evaluation(self, variant: Variant | None = None) -> EvalSpec:
        """Return what scoring needs, with the critics of a variant."""
        return EvalSpec(
            spec=self.source.spec,
            num_bins=self.config.ece_bins,
            batch_size=self.config.batch_size,
            dataset=self.data.dataset,
            critics={} if variant is None else variant.critics,
        )
