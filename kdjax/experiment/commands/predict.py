"""`python -m kdjax predict`: predictions of an exported network for raw files, as .csv."""

import contextlib
import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax import data
from kdjax.errors import CORRUPT_FILE_ERRORS, UserError
from kdjax.evaluation import predictor
from kdjax.evaluation.detector_predictor import Detector
from kdjax.evaluation.predictor import Predictor

Inputs = Iterator[tuple[str, Any]]  # a name, and an image or a text
_CHUNK, _PHOTOS = 1024, 64  # inputs in memory at a time; photographs of a detector
_ARRAYS = ("image", "x_test", "x")  # names in an .npz


def predict(folder: Path, files: Sequence[Path], out: Path, say: Callable[[str], None]) -> None:
    """Write a line for each input: its name, the class, its probability, those of all classes.

    Of a detector, a line for each detected object: the picture, the class, its score and its box.

    Args:
      folder: of an export.
      files: pictures, folders of pictures, or .npy and .npz of images; of a network for texts .txt
        (a text a line), or .csv, .tsv and .jsonl with the fields of its task.
      out: a .csv.
      say: prints a line.

    Raises:
      UserError: from `load`; a file that is missing, of another kind or that does not fit; an
        output that is also an input.
    """
    if out.resolve() in {file.resolve() for file in files}:
        raise UserError(f"--out={out} is an input, too; name another file")
    network = predictor.load(folder)
    is_text = isinstance(network, Predictor) and network.config.get("inputs")
    read = _texts if is_text else _images
    inputs = itertools.chain.from_iterable(read(file, network) for file in files)
    names, count = _columns(network), 0
    is_file = out.is_file() or not out.exists()  # not /dev/stdout
    # an older file stays until all is written
    written = out.with_name(f"{out.name}.part") if is_file else out
    try:
        with written.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(("input", *names))
            size = _PHOTOS if isinstance(network, Detector) else _CHUNK
            while part := list(itertools.islice(inputs, size)):
                writer.writerows(_rows(network, part))
                count += len(part)
        if is_file:
            written.replace(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from error
    finally:
        if is_file:
            with contextlib.suppress(OSError):
                written.unlink()
    say(f"{count} {'pictures' if isinstance(network, Detector) else 'predictions'} -> {out}")


def _columns(network: Predictor | Detector) -> tuple[str, ...]:
    if isinstance(network, Detector):
        return ("prediction", "score", "left", "top", "right", "bottom")
    if network.config["num_classes"] == 1:
        return ("value",)
    return ("prediction", "confidence", *network.class_names)


def _objects(network: Detector, part: Sequence[tuple[str, Any]]) -> Iterator[list[Any]]:
    names, pictures = zip(*part, strict=True)
    for name, (boxes, scores, labels) in zip(names, network(pictures), strict=True):
        for box, score, label in zip(boxes, scores, labels, strict=True):
            yield [name, label, f"{score:.6f}", *(f"{edge:.2f}" for edge in box)]


def _rows(network: Predictor | Detector, part: Sequence[tuple[str, Any]]) -> Iterator[list[Any]]:
    if isinstance(network, Detector):
        yield from _objects(network, part)
        return
    names, inputs = zip(*part, strict=True)
    prediction = network(list(inputs))
    if not prediction.labels:
        for name, row in zip(names, prediction.logits, strict=True):
            yield [name, f"{row[0]:.7g}"]
        return
    for name, label, row in zip(names, prediction.labels, prediction.probabilities, strict=True):
        yield [name, label, *(f"{value:.6f}" for value in (row.max(), *row))]


def _images(file: Path, network: Predictor | Detector) -> Inputs:
    if file.is_dir():
        pictures = sorted(path for path in file.rglob("*") if data.is_picture(path))
        if not pictures:
            raise UserError(f"--input={file} holds no pictures")
        for picture in pictures:
            yield from _images(picture, network)
        return
    _check_file(file)
    if file.suffix.lower() in (".npy", ".npz"):
        images = _array(file)
        images = images[None] if data.is_one_image(images, network.config["shape"]) else images
        for number, image in enumerate(images):
            yield f"{file}:{number}", image
        return
    image = data.open_picture(file, network.config["shape"][-1])
    if network.config["scale"] != 255:
        raise UserError(f"{file} is a picture, but the network takes float images: give an .npy")
    yield str(file), image


def _array(file: Path) -> np.ndarray:
    try:
        stored = np.load(file, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            return stored[next(name for name in _ARRAYS if name in stored.files)]
    except (*CORRUPT_FILE_ERRORS, StopIteration) as error:
        names = ", ".join(_ARRAYS)
        raise UserError(f"--input={file} is no array of images, and holds no {names}") from error


def _texts(file: Path, network: Predictor | Detector) -> Inputs:
    _check_file(file)
    if file.suffix in (".csv", ".tsv", ".jsonl"):
        rows: Sequence[Any] = data.read_rows(file)
    elif file.suffix == ".txt":
        rows = _lines(file)
    else:
        raise UserError(f"--input={file}: texts come in .txt, .csv, .tsv or .jsonl")
    for number, row in enumerate(rows, 1):
        yield f"{file}:{number}", row


def _lines(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig") as opened:
            return [line.removesuffix("\n") for line in opened]
    except (OSError, ValueError) as error:
        raise UserError(f"--input={file} cannot be read ({error}); give UTF-8") from error


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise UserError(f"--input={file}: no such file")
