"""Data on the host: `load(name, ...)` returns a `Source` for any of the names in `known()`."""

from kdjax.data.augment.boxes import TASK as DETECTION
from kdjax.data.augment.corruptions import CODES as CORRUPTIONS
from kdjax.data.augment.corruptions import corrupt
from kdjax.data.augment.images import (
    AUGMENTS,
    EVAL_CROP,
    lookup,
    normalize,
    prepare,
    random_crop_flip,
)
from kdjax.data.detection.dataset import DetectionSet, fit_picture, read_detection
from kdjax.data.digest import digest
from kdjax.data.example import example_batch
from kdjax.data.images.decode import open_picture
from kdjax.data.images.folder import is_picture
from kdjax.data.images.in_memory import pad_batch, unpad_batch
from kdjax.data.images.raw import is_one_image, stack_images
from kdjax.data.language.dataset import SECOND, LanguageSet, read_language
from kdjax.data.language.dataset import TASK as LANGUAGE_MODEL
from kdjax.data.language.tokenizers import start_id
from kdjax.data.options import (
    BatchOptions,
    Columns,
    DetectionOptions,
    ImageOptions,
    LanguageOptions,
    PairOptions,
    SplitOptions,
    TextOptions,
)
from kdjax.data.process_shard import shard_source
from kdjax.data.registry import (
    BUILT_IN,
    PAIRS,
    eval_crop,
    holds_scores,
    known,
    load,
    load_pairs,
    task_metric_names,
)
from kdjax.data.table import holds_text, read_rows
from kdjax.data.text.check_tokenizer import check_tokenizer
from kdjax.data.text.dataset import TABLE_TASK, TextSet, read_text
from kdjax.data.text.raw import open_encoder
from kdjax.data.text.tokenize import save as save_tokenizer
from kdjax.data.text.tokenizer_folder import has_tokenizer

__all__ = [
    "AUGMENTS",
    "BUILT_IN",
    "CORRUPTIONS",
    "DETECTION",
    "EVAL_CROP",
    "LANGUAGE_MODEL",
    "PAIRS",
    "SECOND",
    "TABLE_TASK",
    "BatchOptions",
    "Columns",
    "DetectionOptions",
    "DetectionSet",
    "ImageOptions",
    "LanguageOptions",
    "LanguageSet",
    "PairOptions",
    "SplitOptions",
    "TextOptions",
    "TextSet",
    "check_tokenizer",
    "corrupt",
    "digest",
    "eval_crop",
    "example_batch",
    "fit_picture",
    "has_tokenizer",
    "holds_scores",
    "holds_text",
    "is_one_image",
    "is_picture",
    "known",
    "load",
    "load_pairs",
    "lookup",
    "normalize",
    "open_encoder",
    "open_picture",
    "pad_batch",
    "prepare",
    "random_crop_flip",
    "read_detection",
    "read_language",
    "read_rows",
    "read_text",
    "save_tokenizer",
    "shard_source",
    "stack_images",
    "start_id",
    "task_metric_names",
    "unpad_batch",
]
