"""The types of a built run: what `build` returns and everything after it reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kdjax.data import DetectionSet, TextSet
from kdjax.distill.methods import CriticRole, Player
from kdjax.evaluation.task import EvalSpec
from kdjax.train.step import Optimizer, Prepare
from kdjax.types import Batch, Method, Model, Source, Variables


class Variant(NamedTuple):
    """One static program of a run: what is compiled once, and the members it is mapped over."""

    name: str
    config: Mapping[str, Any]
    table: Mapping[str, Player]
    critics: Mapping[str, CriticRole]  # roles without logits, which are not evaluated
    method: Callable[[str | None], Method]  # of the axis name
    tx: Mapping[str, Optimizer]
    members: tuple[Mapping[str, Any], ...]  # swept values, "seed" always among them
    hparams: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, int]  # by role
    given: Mapping[str, Variables]  # roles that start from a file
    new_heads: tuple[str, ...]  # those whose file has no head for the task: each member draws one
    from_variant: Mapping[str, str]  # roles that start from an earlier variant
    backbones: Mapping[str, Variables]  # of detectors whose heads each member draws
    means: Mapping[str, tuple[Model, str]]  # frozen roles asked for class means: network, layer
    cached: Mapping[str, tuple[Model, tuple[str, ...]]]  # frozen roles with a cache, its layers


class Run(NamedTuple):
    """Everything that a config says, as functions and numbers."""

    config: Mapping[str, Any]
    source: Source
    prepare_train: Prepare
    prepare_eval: Callable[[Batch], Batch]
    variants: tuple[Variant, ...]
    text: TextSet | None = None  # tokenizer and groups, if the data is text
    pictures: DetectionSet | None = None  # what is in the pictures, if boxes are to be found

    def evaluation(self, variant: Variant | None = None) -> EvalSpec:
        """Return what scoring needs, with the critics of a variant."""
        return EvalSpec(
            spec=self.source.spec,
            num_bins=self.config["ece_bins"],
            batch_size=self.config["batch_size"],
            text=self.text,
            pictures=self.pictures,
            critics={} if variant is None else variant.critics,
        )
