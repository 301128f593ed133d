"""Any image classification set of TensorFlow Datasets by name, read without TensorFlow.

The set must be on disk in the array_record format. Nothing is downloaded: preparing most sets needs
TensorFlow and hours, and is a separate command.
"""

import importlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.data.digest import digest, file_lines
from kdjax.data.images.decode import View
from kdjax.data.images.streaming import Records, RecordSet
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError, did_you_mean


def tfds_set(name: str, path: str | None, view: View, known: Sequence[str]) -> RecordSet:
    """Return a tfds set that is in the tfds data_dir `path` (default ~/tensorflow_datasets).

    Args:
        name: "cifar10", "imagenet_resized/64x64", ... with config and version as tfds writes them.
        path: the data_dir.
        view: the resizing of pictures; its size is needed where they differ in size.
        known: the names that the error for an unknown name lists.

    Raises:
        UserError: an unknown name, a set that is not on disk or not in the array_record format, a
            set without images and class labels.
    """
    return from_builder(_builder(name, path, known), name, path, view)


def _builder(name: str, path: str | None, known: Sequence[str]) -> Any:
    import tensorflow_datasets as tfds  # takes two seconds; digits and npz do not need it

    for attempt in range(2):
        try:
            return tfds.builder(name, data_dir=path, file_format="array_record")
        except tfds.core.DatasetNotFoundError as error:
            if attempt == 0:  # some sets are registered when their package is imported
                importlib.import_module("tensorflow_datasets.image_classification")
                continue
            builders = tfds.list_builders(with_community_datasets=False)
            hint = did_you_mean(name, [*known, *builders], cutoff=0.5)
            raise UserError(
                f"data.name is {name!r}, which is unknown; {hint}Choose from "
                f"{', '.join(known)} or any image classification set of tfds"
            ) from error
        except (ValueError, ImportError, OSError) as error:
            reason = " ".join(str(error).split())[-200:]  # tfds ends with the known names
            raise UserError(f"data.name is {name!r}, which tfds refuses: ...{reason}") from error
    raise AssertionError("unreachable")


def open_split(name: str, path: str | None, split: str) -> Any:
    """Open one split of a prepared set, a sequence of examples (dicts).

    Args:
        name: the name of the set.
        path: as in `tfds_set`.
        split: the name of the split.

    Raises:
        UserError: as `tfds_set`.
    """
    return open_prepared(_builder(name, path, [name]), split, name, path)


def from_builder(builder: Any, name: str, path: str | None, view: View) -> RecordSet:
    """Return the set of a prepared tfds builder; arguments as in `tfds_set`."""
    where = f"data.name={name}"
    image_key, label_key = builder.info.supervised_keys or ("image", "label")
    declared = builder.info.features
    features: Any = dict(declared.items()) if hasattr(declared, "items") else {}
    label: Any = features.get(label_key)
    pixels: Any = features.get(image_key)
    if getattr(label, "num_classes", None) is None or len(getattr(pixels, "shape", ())) != 3:
        raise UserError(f"{where} has no image and class label; choose a classification set")
    if pixels.np_dtype != np.uint8:
        raise UserError(f"{where} holds {pixels.np_dtype.__name__} pixels; only uint8 is read")
    channels = int(pixels.shape[-1])
    keys = (image_key, label_key)

    def records(split: str) -> Records:
        source = open_prepared(builder, split, name, path)
        if len(source) == 0:
            raise UserError(f"{where}: its {split} split is empty; prepare it again")
        return Records(partial(_get, source, keys), len(source))

    train = records("train")
    splits = {split: records(split) for split in _eval_splits(builder)}
    if "test" in splits and splits["test"].get(0)[1] < 0:  # labels withheld, as in imagenet2012
        del splits["test"]
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    known_size = None not in pixels.shape
    if view.size is None and not known_size:
        raise UserError(f"{where} holds pictures of several sizes; set data.image_size")
    home = Path(builder.data_dir)
    size = pixels.shape[:2] if view.size is None else (view.size, view.size)
    return RecordSet(
        where=where,
        train=train,
        test=splits.get("test"),
        validation=splits.get("validation"),
        shape=(*size, channels),
        class_names=tuple(label.names or map(str, range(label.num_classes))),
        view=view,
        digest=digest(
            {"files": file_lines(home, sorted(p for p in home.glob("*") if p.is_file()))}
        ),
    )


def _eval_splits(builder: Any) -> tuple[str, ...]:
    """Return the existing test and validation splits; tfds' mock lists none but has all."""
    if not builder.info.splits:
        return ("test",)
    return tuple(split for split in ("test", "validation") if split in builder.info.splits)


def open_prepared(
    builder: Any, split: str, name: str, path: str | None, *, key: str = "data.name"
) -> Any:
    """Open one split of a builder; `key` is the config key with the name of the set.

    Raises:
        UserError: the set is not on disk, or not in the array_record format.
    """
    if builder.info.splits and split not in builder.info.splits:
        raise UserError(f"{key}={name} has the splits {', '.join(builder.info.splits)}, no {split}")
    folder = path or os.path.join("~", "tensorflow_datasets")
    command = f"tfds build {name} --data_dir={folder} --file_format=array_record"
    try:
        return builder.as_data_source(split)
    except (NotImplementedError, ValueError) as error:
        raise UserError(
            f"{key}={name} is in {builder.data_dir} in a format without random access; "
            f"move it away and run: {command}"
        ) from error
    except (KeyError, AssertionError, OSError, ImportError) as error:
        raise UserError(
            f"{key}={name} is not in data.path={folder}; on a machine with a network and "
            f"pip install 'kdjax[tf]', run: {command}"
        ) from error


def _get(source: Any, keys: tuple[str, str], row: int) -> tuple[np.ndarray, int]:
    try:
        example = source[row]
    except (*CORRUPT_FILE_ERRORS, SyntaxError) as error:
        raise UserError(f"example {row} of data.name cannot be read ({error})") from error
    return np.asarray(example[keys[0]]), int(example[keys[1]])
