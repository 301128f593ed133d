"""Data on the host: `load(name, ...)` returns a `Source` for any of the names in `known()`.

To add a set that fits into memory, write a function that returns an `in_memory.ImageSet` in a file
of its own and a line in `_read`; for one that must be decoded or streamed, a function that returns
a `streaming.RecordSet`. What runs inside the compiled step (gather, crop, flip, normalise) is in
`augment`.
"""

from kdjax.data.augment.images import EVAL_CROP
from kdjax.data.images import in_memory as images
from kdjax.data.images import readers, streaming
from kdjax.data.images.decode import View
from kdjax.data.images.folder import folder
from kdjax.data.images.in_memory import ImageSet
from kdjax.data.images.streaming import RecordSet
from kdjax.data.images.synthetic import synthetic
from kdjax.data.images.tfds import tfds_set
from kdjax.data.pairs import dataset as pairs
from kdjax.data.pairs import omniglot, scenes
from kdjax.data.pairs.dataset import PairOptions
from kdjax.data.splits import Options
from kdjax.data.text.tasks import lookup as text_task
from kdjax.types import Source, UserError

__all__ = [
    "PAIRS",
    "known",
    "load",
    "load_pairs",
    "task_metric_names",
]

_OWN = ("coco", "digits", "npz", "idx", "folder", "synthetic", "text", "tiny_imagenet")
PAIRS = ("omniglot", "pairs_digits", "pairs_synthetic", "shapes3d", "celeb_a")
_TFDS = (  # every other image classification set of tfds works too
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


CANVAS = 10 / 7  # of image_size: 320 for 224, as fine as the input where a crop has average area


def task_metric_names(task: str) -> tuple[str, ...]:
    """Return what the benchmark of a text task reports, the most important first."""
    return text_task(task).metrics


def holds_scores(task: str) -> bool:
    """Return whether the labels of a text task are scores."""
    return bool(text_task(task).bounds)


def known() -> list[str]:
    """Return the names that `load` takes: our own, and the commonest of tfds' many."""
    return [*_OWN, *PAIRS, *_TFDS]


def load_pairs(name: str, options: PairOptions) -> Source:
    """Return a set of pairs as a `Source`; its spec has `latents` and `mutual_information`.

    Args:
        name: "omniglot", "pairs_digits" (scikit-learn's digits, or with a path MNIST's, as the
            alphabet of every tile), "pairs_synthetic", "shapes3d", "celeb_a".
        options: `path`, file or folder; `tiles`, `layout` ("grid", "stacked"), `tile_size` (side of
            a tile, or of a view) and `characters` (of each alphabet) of drawings; `pool`, so many
            training pairs instead of endless ones; `eval_pairs` of each evaluation split;
            `validation`, `test` and `split_seed` divide drawings (or scenes) as elsewhere images.

    Raises:
        UserError: one line naming the key or file and what would be right.
    """
    pairs.check(options)
    if name == "omniglot":
        found = pairs.of_drawings(omniglot.omniglot(options.path), options)
    elif name == "pairs_digits":
        found = pairs.of_drawings(omniglot.digits(options.path, max(1, options.tiles)), options)
    elif name == "pairs_synthetic":
        found = scenes.synthetic_pairs(options)
    else:
        found = (scenes.shapes3d if name == "shapes3d" else scenes.celeb_a)(options)
    return pairs.build(found, options)


def load(
    name: str,
    *,
    path: str | None = None,
    batch_size: int,
    eval_batch_size: int = 256,
    validation: float | int = 0.1,
    test: float | int | None = None,
    split_seed: int = 0,
    image_size: int | None = None,
    augment: str = "none",
    canvas: int | None = None,
    eval_crop: float | None = None,
    on_device: bool | str = "auto",
    workers: int = 0,
    limit: int | None = None,
    shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
) -> Source:
    """Return a data set as a `Source`.

    Args:
        name: one of `known()`, or any image classification set of tfds.
        path: the file or folder of "npz", "idx", "folder" and "tiny_imagenet"; the data_dir of
            tfds sets (default ~/tensorflow_datasets).
        batch_size: of training, over all devices.
        eval_batch_size: of evaluation, over all devices; the last batch is padded.
        validation: fraction or count taken from the training split, stratified (a plain random
            sample where labels are unknown before decoding: tfds sets that are streamed). Sets
            that ship both a validation and a test split keep theirs.
        test: fraction or count for sets that ship no test split (digits, flat folders: default
            0.25).
        split_seed: of both splits, and of the synthetic set.
        image_size: height and width to which folders and tfds sets are resized.
        augment: "resized_crop_flip" with an image_size makes training batches hold whole pictures
            (see `resized_crop`); others change nothing here.
        canvas: side of the square to which these are squeezed (default 10/7 of image_size).
        eval_crop: image_size over the shorter side of the picture, before the central crop
            (default .875 with "resized_crop_flip", else 1).
        on_device: True sets `Source.arrays`, False never does, "auto" does up to 1 GiB.
        workers: processes that decode a streamed set; 0 uses threads.
        limit: so many training examples (stratified), after the other splits were cut.
        shape: of the synthetic set; any other set must have it.
        num_classes: of the synthetic set; any other set must have it (npz and idx without class
            names take it as given).

    Raises:
        UserError: one line naming the key or file and what would be right.
    """
    options = Options(
        batch_size, eval_batch_size, validation, test, split_seed, on_device, workers, limit
    )
    _check_on_device(on_device)
    view = _view(image_size, augment, canvas, eval_crop)
    found = _read(name, path, options, view, shape, num_classes)
    if isinstance(found, ImageSet):
        if image_size is not None and (image_size, image_size) != found.train.image.shape[1:3]:
            raise UserError(
                f"data.image_size is {image_size} but {found.where} holds images "
                f"{found.train.image.shape[1:]}; only folders and tfds sets are resized"
            )
        source = images.build(found, options)
    else:
        source = streaming.build(found, options)
    _check_expected(name, source, shape, num_classes)
    return source


def _read(
    name: str,
    path: str | None,
    options: Options,
    view: View,
    shape: tuple[int, ...] | None,
    num_classes: int | None,
) -> ImageSet | RecordSet:
    """Return the `ImageSet` or `RecordSet` of a name; imports that take seconds stay inside."""
    if name == "digits":
        return readers.digits()
    if name == "npz":
        return readers.npz(path, num_classes, needs_test=options.test is None)
    if name == "idx":
        return readers.idx(path, num_classes)
    if name == "synthetic":
        return synthetic(tuple(shape or (8, 8, 1)), num_classes or 10, seed=options.split_seed)
    if name == "folder":
        return folder(path, view)
    if name == "tiny_imagenet":
        from kdjax.data.images.tiny_imagenet import tiny_imagenet

        return tiny_imagenet(path, view)
    return tfds_set(name, path, view, known())


def _view(
    image_size: int | None, augment: str, canvas: int | None, eval_crop: float | None
) -> View:
    cropping = augment == "resized_crop_flip"
    for key, value in (("canvas", canvas), ("eval_crop", eval_crop)):
        if value is not None and image_size is None:
            raise UserError(f"data.{key} is {value} but data.image_size is not set; set both")
    if image_size is None:
        return View()  # pictures of one size, whichever it is, are their own canvas
    crop = (EVAL_CROP if cropping else 1.0) if eval_crop is None else eval_crop
    side = round(image_size * CANVAS) if canvas is None else canvas
    if image_size < 1:
        raise UserError(f"data.image_size is {image_size}; it must be >= 1")
    if not 0 < crop <= 1:
        raise UserError(f"data.eval_crop is {crop}; it must lie in (0, 1]")
    if canvas is not None and (not cropping or canvas < image_size):
        raise UserError(
            f"data.canvas is {canvas}; it is of data.augment=resized_crop_flip only, and at least "
            f"data.image_size = {image_size}"
        )
    return View(image_size, crop, side if cropping else None)


def _check_on_device(on_device: bool | str) -> None:
    if on_device not in (True, False, "auto"):
        raise UserError(f"data.on_device is {on_device!r}; it must be True, False or 'auto'")


def _check_expected(
    name: str, source: Source, shape: tuple[int, ...] | None, num_classes: int | None
) -> None:
    if shape is not None and tuple(shape) != source.spec.shape:
        raise UserError(
            f"data.shape is {tuple(shape)} but {name} holds images {source.spec.shape}; "
            "leave it out"
        )
    if num_classes is not None and num_classes != source.spec.num_classes:
        raise UserError(
            f"data.num_classes is {num_classes} but {name} has {source.spec.num_classes} classes; "
            "leave it out"
        )
