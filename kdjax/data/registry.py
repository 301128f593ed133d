"""Data on the host: `load(name, ...)` returns a `Source` for any of the names in `known()`.

To add a set that fits into memory, add a file with a function that returns an `in_memory.ImageSet`,
and a line in `_read`. For a set that must be decoded or streamed, the function returns a
`streaming.RecordSet`. `augment` contains the operations of the compiled step (gather, crop, flip,
normalise).
"""

from collections.abc import Sequence

from kdjax.data.augment.images import EVAL_CROP
from kdjax.data.images import in_memory as images
from kdjax.data.images import readers, streaming
from kdjax.data.images.decode import View
from kdjax.data.images.folder import folder
from kdjax.data.images.in_memory import ImageSet
from kdjax.data.images.streaming import RecordSet
from kdjax.data.images.synthetic import synthetic
from kdjax.data.images.table import image_table
from kdjax.data.images.tfds import tfds_set
from kdjax.data.images.webdataset import webdataset
from kdjax.data.options import (
    BatchOptions,
    ImageOptions,
    PairOptions,
    SplitOptions,
)
from kdjax.data.pairs import dataset as pairs
from kdjax.data.pairs import omniglot, scenes
from kdjax.data.text.tasks import lookup as text_task
from kdjax.errors import UserError
from kdjax.types import Source

BUILT_IN = (
    "coco",
    "digits",
    "npz",
    "idx",
    "folder",
    "hf",
    "lm",
    "synthetic",
    "text",
    "tiny_imagenet",
    "webdataset",
)
_ARRAYS = ("digits", "npz", "idx", "synthetic")  # of one size
PAIRS = ("omniglot", "pairs_digits", "pairs_synthetic", "shapes3d", "celeb_a")
_TFDS = (  # every other image classification set of tfds works, too
    "cifar10",
    "cifar100",
    "fashion_mnist",
    "imagenet2012",
    "imagenet_resized/32x32",
    "imagenet_resized/64x64",
    "imagenette",
    "kmnist",
    "mnist",
    "stl10",
    "svhn_cropped",
)

CANVAS = 10 / 7  # of image_size: 320 for 224, the resolution of the input at the average crop area


def task_metric_names(task: str) -> tuple[str, ...]:
    """Return the benchmark's metrics of a text task, the most important first."""
    return text_task(task).metrics


def holds_scores(task: str) -> bool:
    """Return whether the labels of a text task are scores."""
    return bool(text_task(task).bounds)


def known() -> list[str]:
    """Return the names that `load` accepts: those of kdjax and the most common ones of tfds."""
    return [*BUILT_IN, *PAIRS, *_TFDS]


def load_pairs(
    name: str, options: PairOptions, batching: BatchOptions, splitting: SplitOptions
) -> Source:
    """Return a set of pairs as a `Source`; its spec has `latents` and `mutual_information`.

    Args:
        name: "omniglot", "pairs_digits" (scikit-learn's digits, or with a path MNIST's, as the
            alphabet of every tile), "pairs_synthetic", "shapes3d", "celeb_a".
        options: the options of pairs.
        batching: `on_device` and `workers` have no effect.
        splitting: divides drawings (or scenes); `limit` has no effect.

    Raises:
        UserError: one line with the key or file and what would be right.
    """
    pairs.check(options, batching, splitting)
    if name == "omniglot":
        pair_set = pairs.of_drawings(omniglot.omniglot(options.path), options, splitting)
    elif name == "pairs_digits":
        alphabets = omniglot.digits(options.path, max(1, options.tiles))
        pair_set = pairs.of_drawings(alphabets, options, splitting)
    elif name == "pairs_synthetic":
        pair_set = scenes.synthetic_pairs(options, splitting.split_seed)
    elif name == "shapes3d":
        pair_set = scenes.shapes3d(options, splitting)
    else:
        pair_set = scenes.celeb_a(options)
    return pairs.build(pair_set, options, batching, splitting.split_seed)


def load(
    name: str, options: ImageOptions, batching: BatchOptions, splitting: SplitOptions
) -> Source:
    """Return a set of images with labels as a `Source`.

    Args:
        name: one of `known()`, or any image classification set of tfds.
        options: the options of images; with `augment` "resized_crop_flip" training batches have
            uncropped pictures (see `resized_crop`).
        batching: sizes and place of the batches.
        splitting: has no effect on validation and test splits that the set ships.

    Raises:
        UserError: one line with the key or file and what would be right.
    """
    image_set = _read(name, options, splitting)
    if isinstance(image_set, RecordSet):
        source = streaming.build(image_set, batching, splitting)
    else:
        size, shape = options.image_size, image_set.train.image.shape[1:]
        if size is not None and (size, size) != shape[:2]:
            raise UserError(
                f"data.image_size is {size} but {image_set.where} holds images {shape}; only "
                "sets of pictures are resized"
            )
        source = images.build(image_set, batching, splitting)
    _check_expected(name, source, options)
    return source


def _read(name: str, options: ImageOptions, splitting: SplitOptions) -> ImageSet | RecordSet:
    """Return the `ImageSet` or `RecordSet` of a name; slow imports are inside the branches."""
    view, path, num_classes = _view(name, options), options.path, options.num_classes
    if name == "digits":
        return readers.digits()
    if name == "npz":
        return readers.npz(path, num_classes, needs_test=splitting.test is None)
    if name == "idx":
        return readers.idx(path, num_classes)
    if name == "synthetic":
        shape: Sequence[int] = options.shape or (8, 8, 1)
        return synthetic(tuple(shape), num_classes or 10, seed=splitting.split_seed)
    skip_unreadable = options.unreadable == "skip"
    if name == "folder":
        return folder(path, view, skip_unreadable=skip_unreadable)
    if name == "hf":
        return image_table(path, options.columns, view, skip_unreadable=skip_unreadable)
    if name == "webdataset":
        return webdataset(path, options.columns, view, skip_unreadable=skip_unreadable)
    if name == "tiny_imagenet":
        from kdjax.data.images.tiny_imagenet import tiny_imagenet

        return tiny_imagenet(path, view)
    return tfds_set(name, path, view, known())


def eval_crop(name: str, options: ImageOptions) -> float | None:
    """Return the side of an evaluated image over the shorter side of its picture; None if as is."""
    if options.image_size is None or name in _ARRAYS:
        return None
    if options.eval_crop is None:
        return EVAL_CROP if options.augment == "resized_crop_flip" else 1.0
    return options.eval_crop


def _view(name: str, options: ImageOptions) -> View:
    size, canvas, crop = options.image_size, options.canvas, options.eval_crop
    cropping = options.augment == "resized_crop_flip"
    if size is None or name in _ARRAYS:
        reason = "data.image_size is not set; set both"
        if name in _ARRAYS:
            reason = f"{name} holds arrays, which are not resized; remove it"
        for key, value in (("canvas", canvas), ("eval_crop", crop)):
            if value is not None:
                raise UserError(f"data.{key} is {value} but {reason}")
        return View()  # pictures of equal size serve as canvases
    crop = eval_crop(name, options) or 0.0
    if size < 1:
        raise UserError(f"data.image_size is {size}; it must be >= 1")
    if not 0 < crop <= 1:
        raise UserError(f"data.eval_crop is {crop}; it must lie in (0, 1]")
    if canvas is not None and (not cropping or canvas < size):
        raise UserError(
            f"data.canvas is {canvas}; it belongs to data.augment=resized_crop_flip only, and must "
            f"be at least data.image_size = {size}"
        )
    side = round(size * CANVAS) if canvas is None else canvas
    return View(size, crop, side if cropping else None)


def _check_expected(name: str, source: Source, options: ImageOptions) -> None:
    shape, num_classes, spec = options.shape, options.num_classes, source.spec
    if shape is not None and tuple(shape) != spec.shape:
        raise UserError(
            f"data.shape is {tuple(shape)} but {name} holds images {spec.shape}; leave it out"
        )
    if num_classes is not None and num_classes != spec.num_classes:
        raise UserError(
            f"data.num_classes is {num_classes} but {name} has {spec.num_classes} classes; "
            "leave it out"
        )
