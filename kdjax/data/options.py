"""Options of the loaders by kind of data; fields have the names of their config keys."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchOptions:
    """Sizes of the batches, over all devices, and where batches are made; for every kind."""

    batch_size: int = 128
    eval_batch_size: int = 256  # the last batch of a split is padded
    on_device: bool | str = "auto"  # True sets `Source.arrays`, "auto" does so up to 1 GiB
    workers: int = 0  # processes that decode a streamed set; 0 uses threads


@dataclass(frozen=True)
class SplitOptions:
    """Division of the stored examples; a float in [0, 1) is a fraction, an integer a count."""

    validation: float | int = 0.1  # of the training split; stratified if labels are known
    test: float | int | None = None  # for sets without a test split; None: 0.25
    split_seed: int = 0
    limit: int | None = None  # training examples, after splitting; stratified as above


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; "" takes the usual names."""

    image: str = ""
    label: str = ""
    text: str = ""
    text_pair: str = ""


@dataclass(frozen=True)
class ImageOptions:
    """Options of images with one label."""

    path: str | None = None  # file or folder; for tfds sets the data_dir
    image_size: int | None = None  # height and width to which stored pictures are resized
    augment: str = "none"  # "resized_crop_flip": training batches hold uncropped pictures
    canvas: int | None = None  # side of the square of uncropped pictures; None: 10/7 image_size
    eval_crop: float | None = None  # image_size over the shorter side; None: .875 or 1
    shape: Sequence[int] | None = None  # of the synthetic set; checked for other sets
    num_classes: int | None = None  # the same; also sets it for npz and idx without class names
    unreadable: str = "refuse"  # or "skip": pictures that cannot be decoded
    columns: Columns = Columns()  # of a table; for tar shards suffixes of the members


@dataclass(frozen=True)
class PairOptions:
    """Options of pairs of views."""

    path: str | None = None
    tiles: int = 1
    layout: str = "grid"  # or "stacked"
    tile_size: int | None = None  # side of a tile, or of a view
    characters: int | None = None  # of each alphabet
    pool: int | None = None  # number of training pairs; None: endless fresh ones
    eval_pairs: int = 2000  # of each evaluation split


@dataclass(frozen=True)
class TextOptions:
    """Options of the tasks of GLUE and SuperGLUE, and of texts in tables."""

    task: str = ""  # such as "glue/sst2"; "text" for a table
    columns: Columns = Columns()  # of a table
    path: str | None = None  # the task's folder, the folder of all tasks, or tfds' data_dir
    form: str = "classify"  # for encoders; "choices" for models that generate an answer
    train_file: str | None = None  # without its ending, if it is not "train"
    vocabulary: str | None = None  # a vocab.txt or its folder; None: WordPiece is trained
    vocabulary_size: int = 8000  # of a trained vocabulary
    tokenizer: str | None = None  # a tokenizer.json instead of WordPiece
    max_length: int = 128  # in tokens, including special ones
    lengths: Sequence[int] | None = None  # of padded batches, at most 4; None: quarters
    window: int = 16  # number of training batches that are sorted by length together
    too_long: str = "truncate"  # with a warning; "refuse" raises


@dataclass(frozen=True)
class LanguageOptions:
    """Options of texts for language models."""

    path: str | None = None  # a file or folder, or "stdlib"
    tokenizer: str | None = None  # a tokenizer.json or its folder; None: a BPE is trained
    bpe_size: int = 4096  # of a trained vocabulary
    second_tokenizer: str | None = None  # of networks that read the batch's entries "second"
    second_bpe_size: int | None = None  # trains it instead
    max_length: int = 128  # of a row, in tokens
    packing: str = "pack"  # or "pad": a row for each piece
    too_long: str = "truncate"  # of prompts with completions; "refuse" raises
    rouge_prompts: int = 0  # of the test split, which `evaluation` lets networks complete


@dataclass(frozen=True)
class DetectionOptions:
    """Options of pictures with boxes."""

    path: str | None = None  # a folder or zip in COCO's layout
    image_size: int | None = None  # of the longer side, a multiple of 32
    max_boxes: int = 100  # of a picture; the smallest are dropped with a warning
    unreadable: str = "refuse"  # or "skip": pictures that cannot be decoded
    judge_train: bool = False  # also evaluate training pictures, as the split "test_train"
