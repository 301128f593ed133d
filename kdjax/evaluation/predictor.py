"""Predictions of an exported network from raw pixels or texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import softmax

from kdjax import data
from kdjax.errors import UserError
from kdjax.evaluation.detector_predictor import Detector, make_detector
from kdjax.models.io import export
from kdjax.types import Batch, Model, Variables

BATCH_SIZES = (1, 8, 64, 256)  # to which batches are padded: each is a compilation

Batches = Callable[[Any, int], Iterator[Mapping[str, np.ndarray]]]  # of inputs, of a size


class Prediction(NamedTuple):
    """The outputs for n inputs.

    `logits` [n, classes]; `probabilities` [n, classes], at the temperature that was fitted on
    validation; `labels`: the name of the most probable class of each. Of a regression, `logits`
    [n, 1] are the values, and the others are empty.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    labels: tuple[str, ...]


class Predictor(NamedTuple):
    """A network with all that its inputs need; `load` makes one.

    `config` is the content of config.json, `temperature` divides the logits.
    """

    apply: Callable[[Variables, Batch], Any]  # compiled: normalises, returns logits
    variables: Variables
    batches: Batches
    class_names: tuple[str, ...]
    temperature: float
    config: Mapping[str, Any]

    def __call__(self, inputs: Any) -> Prediction:
        """Predict any number of inputs, in batches that are padded to a few sizes.

        Args:
          inputs: of a network for images uint8 [n, height, width, channel], or a list of images
            of different sizes if its training resized them (float32 as stored, where the data was
            no uint8). Of a network for texts a list of texts, of pairs, or of dicts with the
            fields of its task.

        Raises:
          UserError: an input that does not fit, with its number.
        """
        count = len(inputs)
        logits = np.zeros((count, self.config["num_classes"]), np.float32)
        if count:
            largest = next((size for size in BATCH_SIZES if size >= count), BATCH_SIZES[-1])
            for batch in self.batches(inputs, largest):
                rows, real = batch["id"], np.asarray(batch["mask"]) > 0
                entries = {k: v for k, v in batch.items() if k not in ("id", "mask", "label")}
                logits[rows[real]] = np.asarray(self.apply(self.variables, entries))[real]
        if logits.shape[1] == 1:
            return Prediction(logits, np.zeros((count, 0)), ())
        probabilities = softmax(logits.astype(np.float64) / self.temperature, axis=1)
        labels = tuple(self.class_names[number] for number in logits.argmax(1))
        return Prediction(logits, probabilities, labels)


def load(folder: str | Path) -> Predictor | Detector:
    """Read an exported network that predicts from raw pixels or texts.

    Args:
      folder: written by `python -m kdjax export`.

    Returns:
      A `Detector` of an export of a detector, else a `Predictor`.

    Raises:
      UserError: no such folder; an encoder of pairs; a network whose normalisation is not known.
    """
    model, variables, config = export.restore(folder)
    if config.get("task") == data.DETECTION:
        return make_detector(model, variables, config)
    if config.get("latents") or config.get("task") == data.LANGUAGE_MODEL:
        raise UserError(f"{folder} holds no classifier: predictions are of classes or scores")
    names = tuple(map(str, config.get("class_names") or range(config["num_classes"])))
    temperature = float(config.get("temperature") or 1.0)
    if config.get("inputs"):
        choices = "choice_ids" in config["inputs"]
        (length,) = config["shape"]
        encoder = data.open_encoder(folder, config["task"], max_length=length, choices=choices)
        apply, batches = _texts(model), encoder.batches
    else:
        if config.get("mean") is None:
            raise UserError(
                f"{folder} does not say how images are normalised: import it with --mean and --std"
            )
        apply, batches = _images(model, config), _image_batches(config)
    return Predictor(jax.jit(apply), variables, batches, names, temperature, config)


def _texts(model: Model) -> Callable[[Variables, Batch], Any]:
    def apply(variables: Variables, batch: Batch) -> Any:
        return model.apply(variables, batch, train=False)[0].logits

    return apply


def _images(model: Model, config: Mapping[str, Any]) -> Callable[[Variables, Batch], Any]:
    def apply(variables: Variables, batch: Batch) -> Any:
        pixels = config["mean"], config["std"], config["scale"]
        image = data.normalize(batch["image"], *pixels)
        return model.apply(variables, {"image": image}, train=False)[0].logits

    return apply


def _image_batches(config: Mapping[str, Any]) -> Batches:
    """Return the function that stacks images, batch by batch; the last one is padded."""

    def batches(inputs: Sequence[Any], size: int) -> Iterator[Mapping[str, np.ndarray]]:
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            padded = next(s for s in BATCH_SIZES if s >= len(part))
            images = data.stack_images(
                part, config["shape"], scale=config["scale"], crop=config.get("crop")
            )
            ids = np.arange(start, start + len(part))
            yield data.pad_batch({"image": images, "id": ids}, padded)

    return batches
