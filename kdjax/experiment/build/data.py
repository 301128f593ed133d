"""From the `data` of a config to a source, and to what happens to its batches in the step."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from kdjax import data, models
from kdjax.evaluation import TASKS
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config.schema import Data
from kdjax.train.step import Prepare
from kdjax.types import Array, Batch, Source, Spec, UserError

BATCH, SPLIT, TEXT, PAIRS, DETECTION, IMAGE = (
    tuple(field.name for field in fields(kind))
    for kind in (
        data.BatchOptions,
        data.SplitOptions,
        data.TextOptions,
        data.PairOptions,
        data.DetectionOptions,
        data.ImageOptions,
    )
)
# The kind of a data set by its name, a task of `evaluation`; all others hold classes.
KIND = {"coco": "detection", **dict.fromkeys(data.PAIRS, "representation")}


def prepare(config: Mapping[str, Any], source: Source) -> tuple[Prepare, Callable[[Batch], Batch]]:
    """What turns raw batches into batches for the models: in training (with a key), in evaluation.

    Raises:
      UserError: an augmentation that does not exist, or any for text.
    """
    still = config["data"]["augment"] == "none"  # then a frozen network may answer from a cache
    make = data.prepare(
        source.spec,
        augment=config["data"]["augment"],
        eval_crop=config["data"]["eval_crop"] or data.EVAL_CROP,
    )

    def train(batch: Batch, key: Array) -> Batch:
        batch = dict(batch)
        found = make(data.lookup(batch.pop("arrays", None), batch), key)
        return {**found, models.ROW: batch["id"]} if still else found

    return train, make


def load(config: Mapping[str, Any]) -> TaskData:
    """Read the data that a config names and choose its task.

    Raises:
      UserError: from what reads it; keys of one kind of data for another; a split
        without examples; mean and std that do not fit.
    """
    table = {**config["data"], **{key: config[key] for key in ("batch_size", "eval_batch_size")}}
    name = table["name"]
    if not name:
        raise UserError(f"data.name is not set; there are {', '.join(data.known())}")
    _refuse_foreign(name, table)
    for key in ("validation", "test"):  # a flag turns 300 into 300.0
        if isinstance(table[key], float) and table[key] >= 1 and table[key].is_integer():
            table[key] = int(table[key])
    batching = data.BatchOptions(**{key: table[key] for key in BATCH})
    splitting = data.SplitOptions(**{key: table[key] for key in SPLIT})
    dataset, kind = None, KIND.get(name, "classification")
    if name in data.PAIRS:
        pairs = data.PairOptions(**{key: table[key] for key in PAIRS})
        source = data.load_pairs(name, pairs, batching, splitting)
    elif name == "text":
        texts = data.TextOptions(**{key: table[key] for key in TEXT})
        dataset = data.read_text(texts, batching, splitting)
        source = dataset.source
        kind = "text_regression" if data.holds_scores(texts.task) else "text_classification"
    elif name == "coco":
        boxes = data.DetectionOptions(**{key: table[key] for key in DETECTION})
        dataset = data.read_detection(boxes, batching, splitting)
        source = dataset.source
    else:
        pictures = data.ImageOptions(**{key: table[key] for key in IMAGE})
        source = data.load(name, pictures, batching, splitting)
    for split in ("validation", "test"):
        if not source.size.get(split):
            raise UserError(
                f"data.{split} leaves no {split} examples; every choice is made on validation "
                "and every number reported on test, so that both are needed"
            )
    if name != "text":
        source = source._replace(spec=_normalised(source.spec, config["data"]))
    return TaskData(source, TASKS[kind], dataset)


def _refuse_foreign(name: str, table: Mapping[str, Any]) -> None:
    """Refuse keys that only another kind of data has."""
    for owners, keys in (("text", TEXT), (", ".join(data.PAIRS), PAIRS), ("coco", DETECTION)):
        if name in owners.split(", "):
            continue
        for key in keys:
            if key not in IMAGE and table[key] != getattr(Data(), key):
                raise UserError(
                    f"data.{key} is set, but only {owners} has it; set data.name to that or "
                    "remove it"
                )
    if name in data.PAIRS:
        for key in ("limit", "on_device", "workers", *IMAGE):
            if key not in (*PAIRS, "augment") and table[key] != getattr(Data(), key):
                raise UserError(f"data.{key} is set, but {name} has no such key; remove it")
    if name == "coco":
        for key in ("test", "canvas", "eval_crop", "shape", "num_classes"):
            if table[key] is not None:
                raise UserError(
                    f"data.{key} is {table[key]!r}, but coco does not take it; remove it"
                )


def _normalised(spec: Spec, said: Mapping[str, Any]) -> Spec:
    """The spec with the mean and std that a config gives instead of the training split's."""
    for key in ("mean", "std"):
        values = said[key]
        if values is None:
            continue
        if len(values) != spec.shape[-1] or (key == "std" and not all(v > 0 for v in values)):
            raise UserError(
                f"data.{key} is {tuple(values)}; it must hold {spec.shape[-1]} numbers, one a "
                f"channel{', all > 0' if key == 'std' else ''}"
            )
        spec = spec._replace(**{key: tuple(float(value) for value in values)})
    return spec
