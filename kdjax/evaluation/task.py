"""What scoring depends on beside the predictions of the networks, and those predictions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from kdjax.data import DetectionSet, TextSet
from kdjax.distill.methods import CriticRole
from kdjax.types import Spec

Scores = dict[str, np.ndarray]  # metric -> [members]


class EvalSpec(NamedTuple):
    """Everything about the data and the run that metrics need."""

    spec: Spec
    num_bins: int  # of the calibration errors
    batch_size: int  # of training; critics of representations score blocks of this size
    text: TextSet | None = None
    pictures: DetectionSet | None = None
    critics: Mapping[str, CriticRole] = MappingProxyType({})


class Predictions(NamedTuple):
    """The outputs of all roles on a split, by role [members, examples, classes].

    Of detectors: detections, [members, pictures, detections x 7]. `critics`: the estimates of
    critics, if representations are evaluated.
    """

    split: str
    outputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    critics: Mapping[str, np.ndarray] = MappingProxyType({})
