"""Studies: computations over many settings that return the numbers of a figure.

A study is a function of its settings that returns a `StudyResult`; an experiment file has its name
and settings. It computes with numpy in float64 on the host, and does not train, read files or draw.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kdjax.bounds.studies.contraction import ContractionSettings, contraction
from kdjax.bounds.studies.enumeration import LaboratorySettings, laboratory
from kdjax.bounds.studies.gap_correlation import tracking
from kdjax.bounds.studies.gaussian import GaussianSettings, gaussian
from kdjax.bounds.studies.gibbs import GibbsSettings, gibbs
from kdjax.bounds.studies.networks import network_bounds
from kdjax.bounds.studies.results import StudyResult, as_json

__all__ = ["STUDIES", "StudyResult", "StudySpec", "as_json", "network_bounds", "tracking"]


class StudySpec(NamedTuple):
    """A study: its settings, a dataclass whose fields are config keys, and a function of them."""

    settings: type
    compute: Callable[[Any], StudyResult]


STUDIES: Mapping[str, StudySpec] = {
    "contraction": StudySpec(ContractionSettings, contraction),
    "gaussian": StudySpec(GaussianSettings, gaussian),
    "gibbs": StudySpec(GibbsSettings, gibbs),
    "laboratory": StudySpec(LaboratorySettings, laboratory),
}
