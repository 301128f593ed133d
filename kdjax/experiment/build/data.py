"""From the `data` of a config to a source, and to what happens to its batches in the step."""

from collections.abc import Callable, Mapping
from typing import Any

from kdjax import data, models
from kdjax.evaluation import TASKS
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config.schema import DEFAULTS
from kdjax.train.step import Prepare
from kdjax.types import Array, Batch, Source, Spec, UserError

TEXT = (  # keys of `data` that only text has
    "task",
    "form",
    "train_file",
    "vocabulary",
    "vocabulary_size",
    "tokenizer",
    "max_length",
    "lengths",
    "window",
    "too_long",
)
PAIRS = ("tiles", "layout", "tile_size", "characters", "pool", "eval_pairs")  # only pairs have them
DETECTION = ("max_boxes", "unreadable", "judge_train")  # that only pictures with boxes have
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
    said = dict(config["data"])
    for key in ("mean", "std", "seed"):
        del said[key]
    name = said.pop("name")
    if not name:
        raise UserError(f"data.name is not set; there are {', '.join(data.known())}")
    kinds = {"text": TEXT, ", ".join(data.PAIRS): PAIRS, "coco": DETECTION}
    _refuse_foreign(name, kinds, said)
    text, paired, boxes = ({key: said.pop(key) for key in keys} for keys in kinds.values())
    for key in ("validation", "test"):  # a flag turns 300 into 300.0
        if isinstance(said[key], float) and said[key] >= 1 and said[key].is_integer():
            said[key] = int(said[key])
    kind = KIND.get(name, "classification")
    sizes = {key: config[key] for key in ("batch_size", "eval_batch_size")}
    if name in data.PAIRS:
        cut = {key: said.pop(key) for key in ("path", "validation", "test", "split_seed")}
        foreign = [k for k in said if k != "augment" and said[k] != DEFAULTS["data"][k]]
        if foreign:
            raise UserError(f"data.{foreign[0]} is set, but {name} has no such key; remove it")
        found, source = None, data.load_pairs(name, data.PairOptions(**sizes, **cut, **paired))
    elif name == "text":
        task = text.pop("task")
        if not task:
            raise UserError("data.task is not set; name one such as glue/sst2 or super_glue/boolq")
        common = {key: said[key] for key in ("path", "validation", "test", "split_seed", "limit")}
        found = data.read_text(task, data.TextOptions(**sizes, **text, **common))
        source = found.source
        kind = "text_regression" if data.holds_scores(task) else "text_classification"
    elif name == "coco":
        found = data.read_detection(_detection_options(said, {**sizes, **boxes}))
        source = found.source
    else:
        found, source = None, data.load(name, **sizes, **said)
    for split in ("validation", "test"):
        if not source.size.get(split):
            raise UserError(
                f"data.{split} leaves no {split} examples; every choice is made on validation "
                "and every number reported on test, so that both are needed"
            )
    if name != "text":
        source = source._replace(spec=_normalised(source.spec, config["data"]))
    return TaskData(source, TASKS[kind], found)


def _refuse_foreign(
    name: str, keys: Mapping[str, tuple[str, ...]], said: Mapping[str, Any]
) -> None:
    """Refuse keys that only another kind of data has; `keys` by the name or names of that kind."""
    for owners, owned in keys.items():
        if name in owners.split(", "):
            continue
        for key in owned:
            if said[key] != DEFAULTS["data"][key]:
                raise UserError(
                    f"data.{key} is set, but only {owners} has it; set data.name to that or "
                    "remove it"
                )


def _detection_options(said: Mapping[str, Any], others: Mapping[str, Any]) -> data.DetectionOptions:
    for key in ("test", "canvas", "eval_crop", "shape", "num_classes"):
        if said[key] is not None:
            raise UserError(f"data.{key} is {said[key]!r}, but coco does not take it; remove it")
    keys = ("path", "image_size", "validation", "split_seed", "limit", "on_device", "workers")
    return data.DetectionOptions(**others, **{key: said[key] for key in keys})


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
