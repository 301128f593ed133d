"""Tiny ImageNet (200 classes, 64 x 64) from the public archive's folder, as a tfds builder.

tfds has no such set. `data.path` is the folder that holds tiny-imagenet-200/, unzipped:

    wnids.txt  train/nXXXXXXXX/images/*.JPEG  val/images/*.JPEG  val/val_annotations.txt

The first use writes tiny_imagenet/1.0.0 (array_record) into the same folder. The archive is then no
longer needed. The labelled val split is the test split, as in the literature; the
archive's own test split has no labels.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from kdjax.data.images.decode import View
from kdjax.data.images.readers import existing
from kdjax.data.images.streaming import RecordSet
from kdjax.data.images.tfds import from_builder
from kdjax.errors import UserError

_FOLDER = "tiny-imagenet-200"
_VERSION = "1.0.0"


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Images with the wnid as label; `manual_dir` is the folder tiny-imagenet-200."""

    VERSION = tfds.core.Version(_VERSION)
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Unzip {_FOLDER}.zip."

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(),  # named when the archive is read
            }
        )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tiny ImageNet: 200 classes of ImageNet at 64 x 64.",
            features=features,
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        archive = Path(dl_manager.manual_dir)
        features: Any = self.info.features
        features["label"].names = (archive / "wnids.txt").read_text().split()
        return {"train": self._train(archive), "validation": self._validation(archive)}

    def _generate_examples(self) -> None:
        """Satisfy the base class; each split has its own generator."""

    def _train(self, archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for file in sorted((archive / "train").glob("*/images/[!.]*.JPEG")):
            yield file.name, {"image": file, "label": file.parent.parent.name}

    def _validation(self, archive: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        for line in (archive / "val" / "val_annotations.txt").read_text().splitlines():
            name, wnid = line.split("\t")[:2]
            yield name, {"image": archive / "val" / "images" / name, "label": wnid}


def tiny_imagenet(path: str | None, view: View) -> RecordSet:
    """Return the set, preparing it on first use.

    Args:
        path: the folder that holds tiny-imagenet-200/ or, once prepared, tiny_imagenet/.
        view: the resizing of pictures; without a size, 64 x 64.

    Raises:
        UserError: a missing or incomplete archive, or a folder that cannot be written.
    """
    root = existing(path, f"the folder that holds {_FOLDER}/")
    root = root.parent if root.name == _FOLDER else root
    prepared = root / "tiny_imagenet" / _VERSION
    if not (prepared / "dataset_info.json").exists():
        _prepare(root)
    builder = tfds.builder_from_directory(prepared)
    view = view._replace(size=view.size or 64)
    return from_builder(builder, "tiny_imagenet", str(root), view)._replace(are_files=True)


def _prepare(root: Path) -> None:
    archive = root / _FOLDER
    for part in ("wnids.txt", "train", "val/images", "val/val_annotations.txt"):
        if not (archive / part).exists():
            raise UserError(
                f"{archive / part} is missing; data.path={root} must hold the unzipped {_FOLDER}"
            )
    config = tfds.download.DownloadConfig(manual_dir=archive)
    try:
        builder = TinyImagenet(data_dir=root, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    except (OSError, ValueError, KeyError) as error:
        shutil.rmtree(root / "tiny_imagenet" / _VERSION, ignore_errors=True)
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"data.path={root}: {_FOLDER} cannot be prepared there: {reason}"
        ) from error
