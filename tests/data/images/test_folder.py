"""Folders of images, and the public archive of Tiny ImageNet."""

import numpy as np
import pytest
from PIL import Image

from kdjax.errors import UserError
from tests.data import fakes


def images(source, split):
    return np.concatenate([b["image"][b["mask"] > 0] for b in source.evals[split]()])


class TestFolder:
    def test_a_flat_layout_is_split_at_random(self, tmp_path):
        fakes.write_pictures(tmp_path, count=8)
        source = fakes.load("folder", path=str(tmp_path), batch_size=4)
        assert source.size == {"train": 16, "validation": 2, "test": 6}
        assert source.spec.class_names == ("ant", "bee", "cat")
        classes = np.concatenate([images(source, split)[:, 0, 0, 0] for split in source.size])
        assert sorted(classes) == sorted(10 * c + n for c in range(3) for n in range(8))

    @pytest.mark.parametrize("other", ["val", "test", "validation"])
    def test_two_folders(self, tmp_path, other):
        fakes.write_pictures(tmp_path / "train")
        fakes.write_pictures(tmp_path / other, count=2)
        source = fakes.load("folder", path=str(tmp_path), batch_size=4, validation=3)
        assert source.size == {"train": 15, "validation": 3, "test": 6}

    def test_three_folders(self, tmp_path):
        for split, count in (("train", 6), ("val", 2), ("test", 1)):
            fakes.write_pictures(tmp_path / split, count=count)
        source = fakes.load("folder", path=str(tmp_path), batch_size=4)
        assert source.size == {"train": 18, "validation": 6, "test": 3}

    def test_streamed_equals_in_memory(self, tmp_path):
        fakes.write_pictures(tmp_path, count=8)
        on, off = (
            fakes.load("folder", path=str(tmp_path), batch_size=4, on_device=d)
            for d in (True, False)
        )
        assert off.arrays is None
        assert on.arrays is not None
        assert on.size == off.size
        assert np.allclose(on.spec.mean, off.spec.mean)
        batches = off.train(7, 1)
        for ids in (b["id"] for b, _ in zip(on.train(7, 1), range(3), strict=False)):
            batch = next(batches)
            assert np.array_equal(batch["id"], ids)
            assert np.array_equal(batch["image"], on.arrays["image"][ids])
            assert np.array_equal(batch["label"], on.arrays["label"][ids])
        for split in on.size:
            assert np.array_equal(images(on, split), images(off, split))

    def test_grey_images_have_one_channel(self, tmp_path):
        fakes.write_pictures(tmp_path, mode="L")
        assert fakes.load("folder", path=str(tmp_path), batch_size=4).spec.shape == (8, 8, 1)

    def test_resizes_and_crops_the_centre(self, tmp_path):
        fakes.write_pictures(tmp_path)
        wide = np.zeros((10, 30, 3), np.uint8)
        wide[:, 10:20] = 200
        Image.fromarray(wide).save(tmp_path / "ant" / "0.png")
        source = fakes.load("folder", path=str(tmp_path), batch_size=4, image_size=10, validation=0)
        pixels = np.concatenate([images(source, split) for split in source.size])
        assert pixels.shape == (18, 10, 10, 3)
        assert any(np.all(image == 200) for image in pixels)

    @pytest.mark.parametrize("on_device", [True, False])
    def test_different_sizes_are_an_error(self, tmp_path, on_device):
        fakes.write_pictures(tmp_path)
        Image.new("RGB", (9, 8)).save(tmp_path / "cat" / "5.png")

        def read():
            source = fakes.load("folder", path=str(tmp_path), batch_size=2, on_device=on_device)
            return [images(source, split) for split in source.size]

        with pytest.raises(UserError, match=r"shape \(8, 9, 3\).*set data\.image_size"):
            read()

    def test_errors(self, tmp_path):
        def refused(pattern):
            with pytest.raises(UserError, match=pattern):
                fakes.load("folder", path=str(tmp_path), batch_size=2)

        refused("has 0 class subfolders")
        fakes.write_pictures(tmp_path / "train")
        fakes.write_pictures(tmp_path / "test", names=("dog",))
        refused(r"test/dog has no counterpart in the training split; its classes are ant, bee, cat")
        (tmp_path / "test" / "dog").rename(tmp_path / "test" / "ant")
        (tmp_path / "train" / "bee" / "1.png").write_bytes(b"no picture")
        refused(r"bee/1\.png is not a readable picture")
        (tmp_path / "train" / "cow").mkdir()
        refused(r"train/cow holds no pictures")


def archive(root, classes=3):
    base = root / "tiny-imagenet-200"
    wnids = [f"n0000000{index}" for index in range(classes)]
    rng = np.random.default_rng(0)

    def picture(file, label, grey=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 40, (64, 64, 3), dtype=np.uint8) + 60 * label
        image = Image.fromarray(pixels[..., 0] if grey else pixels)
        image.save(file, quality=95)

    lines = []
    for label, wnid in enumerate(wnids):
        for number in range(5):
            name = f"{wnid}_{number}.JPEG"
            picture(base / "train" / wnid / "images" / name, label, grey=number == 0)
        picture(base / "val" / "images" / f"val_{label}.JPEG", label)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t62\t62")
    (base / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (base / "wnids.txt").write_text("\n".join(reversed(wnids)) + "\n")  # the order of the class ids
    return wnids


class TestTinyImagenet:
    def test_prepares_without_tensorflow_and_reads_back(self, tmp_path):
        wnids = archive(tmp_path)
        source = fakes.load("tiny_imagenet", path=str(tmp_path), batch_size=4, validation=3)
        assert source.size == {"train": 12, "validation": 3, "test": 3}
        assert source.spec.shape == (64, 64, 3)
        assert source.spec.class_names == tuple(reversed(wnids))
        for split in source.size:  # brightness encodes the class: images keep their labels
            for batch in source.evals[split]():
                brightness = batch["image"].mean((1, 2, 3)) // 60
                assert np.array_equal(2 - brightness, batch["label"])

        (tmp_path / "tiny-imagenet-200").rename(tmp_path / "elsewhere")
        again = fakes.load(
            "tiny_imagenet", path=str(tmp_path), batch_size=4, validation=3, on_device=False
        )
        assert again.arrays is None
        batch = next(again.train(5, 0))
        assert np.array_equal(2 - batch["image"].mean((1, 2, 3)) // 60, batch["label"])

    def test_incomplete_archive(self, tmp_path):
        archive(tmp_path)
        (tmp_path / "tiny-imagenet-200" / "wnids.txt").unlink()
        with pytest.raises(UserError, match=r"wnids\.txt is missing; data\.path="):
            fakes.load("tiny_imagenet", path=str(tmp_path), batch_size=4)
