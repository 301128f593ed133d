"""Detections of an exported detector in raw pictures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from kdjax import data
from kdjax.errors import UserError
from kdjax.evaluation.detection import hide_boxes, to_photo
from kdjax.types import Batch, Model, Spec, Variables

BATCH_SIZE = 8  # to which batches are padded


class Detections(NamedTuple):
    """The detected objects of a picture, best first.

    `boxes` [m, 4]: left, top, right, bottom in pixels of the picture; `scores` [m]; `labels`: names
    of the classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]


class Detector(NamedTuple):
    """A detector with all that its inputs need; `load` makes one from an export of a detector.

    `config` is the content of config.json.
    """

    apply: Callable[[Variables, Batch], Any]  # compiled: normalises, returns packed detections
    variables: Variables
    class_names: tuple[str, ...]
    config: Mapping[str, Any]

    def __call__(self, pictures: Sequence[Any]) -> list[Detections]:
        """Detect objects in uint8 pictures [height, width, 3] of any sizes.

        Raises:
          UserError: a picture of another kind, with its number.
        """
        results: list[Detections] = []
        side = self.config["shape"][0]
        for start in range(0, len(pictures), BATCH_SIZE):
            part = [np.asarray(picture) for picture in pictures[start : start + BATCH_SIZE]]
            for number, picture in enumerate(part, start):
                if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                    raise UserError(
                        f"picture {number} is {picture.dtype} {picture.shape}; give uint8 "
                        "[height, width, 3]"
                    )
            packed = np.asarray(self.apply(self.variables, _batch(part, side)))
            results += [
                self._unpack(rows, picture.shape[:2], side)
                for rows, picture in zip(packed, part, strict=False)
            ]
        return results

    def _unpack(self, packed: np.ndarray, size: tuple[int, int], side: int) -> Detections:
        rows = to_photo(packed, size, side)
        rows = rows[np.argsort(-rows[:, 4], kind="stable")]
        names = tuple(self.class_names[int(number)] for number in rows[:, 5])
        return Detections(rows[:, :4], rows[:, 4], names)


def _batch(pictures: Sequence[np.ndarray], side: int) -> dict[str, np.ndarray]:
    """Stack resized pictures to a batch of `BATCH_SIZE`; the boxes are placeholders."""
    padded = [*pictures, *[pictures[-1]] * (BATCH_SIZE - len(pictures))]
    images, sizes = zip(*(data.fit_picture(picture, side) for picture in padded), strict=True)
    return {
        "image": np.stack(images),
        "size": np.array(sizes, np.float32),
        "box": np.zeros((BATCH_SIZE, 1, 4), np.float32),
        "id": np.arange(BATCH_SIZE, dtype=np.int32),
    }


def make_detector(model: Model, variables: Variables, config: Mapping[str, Any]) -> Detector:
    """Return a detector, from what `export.restore` reads."""
    spec = Spec(**{name: config[name] for name in Spec._fields if name in config})
    prepare = data.prepare(spec)

    def apply(variables: Variables, batch: Batch) -> Any:
        outputs, _ = model.apply(variables, hide_boxes(prepare(batch)), train=False)
        return outputs.features["detections"]

    return Detector(jax.jit(apply), variables, tuple(spec.class_names), config)
