"""From the `data` of a config to a source and the preparation of its batches in the step."""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TypeVar

from kdjax import data, models
from kdjax.errors import UserError, prefix_errors
from kdjax.evaluation import TASKS, rouge
from kdjax.experiment.build.pixel_range import check_same_range, normalised
from kdjax.experiment.build.plan import TaskData
from kdjax.experiment.config import schema_lookup
from kdjax.experiment.config.schema import Config, Data
from kdjax.report import files, staging
from kdjax.train.step import Prepare
from kdjax.types import Array, Batch, Source

T = TypeVar("T")

# data set -> its kind, a task of `evaluation`; all others are image classification
KIND = {
    "coco": "detection",
    "lm": data.LANGUAGE_MODEL,
    **dict.fromkeys(data.PAIRS, "representation"),
}


# keys of images that pairs do not have
_NOT_OF_PAIRS = (
    "limit", "on_device", "workers", "image_size", "canvas", "eval_crop", "shape", "num_classes",
)  # fmt: skip
# data sets of a key -> the key's `of` in the schema
_OWNERS = {
    **{
        of: of
        for of in (
            "text",
            "lm",
            "lm, text",
            "coco",
            "coco, folder, hf, webdataset",
            "hf, text, webdataset",
        )
    },
    ", ".join(data.PAIRS): "pairs",
}
_TOKENIZERS = ("vocabulary", "tokenizer", "second_tokenizer")
_FILES = ("path", "train_file", *_TOKENIZERS)
# what a tokenizer's file is read with
_BESIDE_TOKENIZERS = ("tokenizer_config.json", "special_tokens_map.json", "merges.txt")
_NOT_OF_COCO = ("test", "canvas", "eval_crop", "shape", "num_classes")


def prepare(
    config: Config, source: Source, *, second_view: bool = False
) -> tuple[Prepare, Callable[[Batch], Batch]]:
    """Return two functions that prepare raw batches: for training (with a key) and for evaluation.

    Raises:
      UserError: an unknown augmentation, or any for text.
    """
    fixed_images = config.data.augment == "none"  # outputs of frozen networks may be cached
    make = data.prepare(
        source.spec,
        augment=config.data.augment,
        eval_crop=config.data.eval_crop or data.EVAL_CROP,
        second_view=second_view,
    )

    def train(batch: Batch, key: Array) -> Batch:
        batch = dict(batch)
        prepared = make(data.lookup(batch.pop("arrays", None), batch), key)
        return {**prepared, models.ROW: batch["id"]} if fixed_images else prepared

    return train, make


def load(
    config: Config, tokenizer: str | None = None, second_tokenizer: str | None = None
) -> TaskData:
    """Read the data of a config and select its task.

    `tokenizer` is the folder of the tokenizer of texts, if the config names none;
    `second_tokenizer` replaces a second one that would be trained on the texts.

    Raises:
      UserError: the errors of the reader; keys of another kind of data; a split without examples;
        mean and std that do not fit.
    """
    name = config.data.name
    if not name:
        raise UserError(f"data.name is not set; there are {', '.join(data.known())}")
    _refuse_foreign(config.data)
    config = config.model_copy(update={"data": _with_local_files(config.data)})
    batching = _options(data.BatchOptions, config)
    splitting = _options(data.SplitOptions, config)
    dataset, kind = None, KIND.get(name, "classification")
    is_text = name == "text" or (name == "hf" and _holds_text(config.data))
    if name in data.PAIRS:
        source = data.load_pairs(name, _options(data.PairOptions, config), batching, splitting)
    elif is_text:
        texts = _options(data.TextOptions, config)
        if texts.vocabulary is None and texts.tokenizer is None:
            texts = replace(texts, tokenizer=tokenizer)
        texts = replace(texts, task=data.TABLE_TASK) if name == "hf" else texts
        dataset = data.read_text(texts, batching, splitting)
        source = dataset.source
        scores = data.holds_scores(source.spec.task)
        kind = "text_regression" if scores else "text_classification"
    elif name == "lm":
        language = _options(data.LanguageOptions, config)
        language = replace(language, tokenizer=language.tokenizer or tokenizer)
        if language.second_bpe_size is not None and second_tokenizer is not None:
            language = replace(language, second_bpe_size=None, second_tokenizer=second_tokenizer)
        dataset = data.read_language(language, batching, splitting)
        source = dataset.source
        rouge.check(dataset, language.rouge_prompts)
    elif name == "coco":
        dataset = data.read_detection(_options(data.DetectionOptions, config), batching, splitting)
        source = dataset.source
    else:
        source = data.load(name, _options(data.ImageOptions, config), batching, splitting)
    for split in ("validation", "test"):
        if not source.size.get(split):
            raise UserError(
                f"data.{split} leaves no {split} examples; choices are made on validation and "
                "numbers are reported on test, so both are needed"
            )
    names = data.digest({"class names": source.spec.class_names})
    source = source._replace(digest={**source.digest, **names})
    if not source.spec.vocab_size:
        source = source._replace(spec=normalised(source.spec, config.data))
    return TaskData(source, TASKS[kind], dataset)


_OF_NETWORKS = ("shape", "scale", "num_classes", "class_names", "inputs", "vocabulary", "task")


def with_test_splits(own: TaskData, other: TaskData) -> TaskData:
    """Return data whose test splits are those of other data, for the same networks.

    Validation and training splits, and the normalisation of images, stay.

    Raises:
      UserError: data of another shape, of other classes or of another kind.
    """
    for name in _OF_NETWORKS:
        old, new = (getattr(data.source.spec, name) for data in (own, other))
        if old != new:
            raise UserError(f"the data of --config.data has {name} {new}, but the run has {old}")

    check_same_range(own.source.spec, other.source.spec)
    seconds = [data.second and data.second.source.spec.vocabulary for data in (own, other)]
    if seconds[0] != seconds[1]:
        raise UserError(
            "the second tokenizer of --config.data is not that of the run; set "
            "data.second_tokenizer to the latter's folder"
        )
    source = _merged_source(own.source, other.source)
    dataset = own.dataset
    if isinstance(dataset, data.LanguageSet):
        dataset = _merged_texts(dataset, other.dataset)
    if isinstance(dataset, data.TextSet):
        dataset = dataset._replace(groups=_merged(dataset.groups, other.dataset.groups))
    if isinstance(dataset, data.DetectionSet):
        photos = _merged(dataset.photos, other.dataset.photos)
        dataset = dataset._replace(photos=photos, open=other.dataset.open)  # tests are drawn
    return TaskData(source, own.task, dataset)


def _merged(table: Mapping[str, T], new: Mapping[str, T]) -> dict[str, T]:
    """Return a table by split, whose test splits are those of another one."""
    rest = {split: x for split, x in table.items() if not split.startswith("test")}
    return rest | {split: x for split, x in new.items() if split.startswith("test")}


def _merged_source(own: Source, other: Source) -> Source:
    evals, size = _merged(own.evals, other.evals), _merged(own.size, other.size)
    return own._replace(evals=evals, size=size, rows=None)


def _merged_texts(own: data.LanguageSet, other: data.LanguageSet) -> data.LanguageSet:
    """Return texts whose test splits are those of other texts, in each tokenizer's tokens."""
    return own._replace(
        source=_merged_source(own.source, other.source),
        num_bytes=_merged(own.num_bytes, other.num_bytes),
        test_rows=other.test_rows,
        rouge_prompts=other.rouge_prompts,
        second=own.second and other.second and _merged_texts(own.second, other.second),
    )


def eval_crop(config: Config) -> float | None:
    """Return `data.eval_crop` as it is used; None where images are not resized."""
    name = config.data.name
    is_image = name not in (*data.PAIRS, "text", "lm", "coco")
    return data.eval_crop(name, _options(data.ImageOptions, config)) if is_image else None


def _with_local_files(table: Data) -> Data:
    """Return a table that names local copies of what is in a bucket; of tfds only the set.

    Large sets of shards stay in the bucket: they are streamed.
    """
    changes = {}
    for key in _FILES:
        if (address := getattr(table, key)) is None:
            continue
        folder = "" if table.name in data.BUILT_IN else table.name.partition("/")[0]
        with prefix_errors(f"data.{key}: "):
            may_stream = table.name == "webdataset" and key == "path" and files.is_remote(address)
            if may_stream and not staging.fits_on_disk(address):
                continue
            is_file = key in _TOKENIZERS and address.endswith((".json", ".txt"))
            siblings = _BESIDE_TOKENIZERS if is_file else ()
            changes[key] = staging.local_copy(address, folder, siblings)
    return table.model_copy(update=changes)


def _holds_text(table: Data) -> bool:
    """Return whether a set of hf is read as texts; refuse keys that do not belong to it."""
    is_text = data.holds_text(table.path, data.Columns(**dict(table.columns)))
    of_text = (*schema_lookup.of_data("text"), *schema_lookup.of_data("lm, text"))
    for key in ("task", "train_file") if is_text else of_text:
        if getattr(table, key) != Data.model_fields[key].default:
            content = "texts of its own" if is_text else "images"
            raise UserError(
                f"data.{key} is set, but hf of data.path={table.path} is read as {content}; remove "
                "it"
            )
    return is_text


def _options(kind: type[T], config: Config) -> T:
    """Fill in a loader's options from the keys with the same names, of `data` or of the config."""
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    tables = {name: config.data if name in Data.model_fields else config for name in names}
    values = {name: getattr(table, name) for name, table in tables.items()}
    if "columns" in values:
        values["columns"] = data.Columns(**dict(values["columns"]))
    return kind(**values)


def _refuse_foreign(table: Data) -> None:
    """Refuse keys of another kind of data."""
    name, changed = table.name, {k for k, v in table if v != Data.model_fields[k].default}
    for owners, kind in _OWNERS.items():
        is_own = name in owners.split(", ") or (name == "hf" and kind in ("text", "lm, text"))
        foreign = [] if is_own else schema_lookup.of_data(kind)
        for key in foreign:
            if key in changed:
                raise UserError(
                    f"data.{key} is set, but only {owners} has it; set data.name to that or "
                    "remove it"
                )
    for key in _NOT_OF_PAIRS if name in data.PAIRS else ():
        if key in changed:
            raise UserError(f"data.{key} is set, but {name} has no such key; remove it")
    for key in _NOT_OF_COCO if name == "coco" else ():
        if getattr(table, key) is not None:
            raise UserError(
                f"data.{key} is {getattr(table, key)!r}, but coco does not take it; remove it"
            )
