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

    @pytest.mark.parametrize(
        ("train", "test", "validation"),
        [
            ("training_set", "test_set", None),
            ("Train", "TEST", "Val"),
            ("trainset", "testing-set", "validation"),
            ("training", "Testing", "VALID"),
        ],
    )
    def test_splits_are_known_by_name(self, tmp_path, train, test, validation):
        for split, count in ((train, 6), (test, 1), (validation, 2)):
            if split:
                fakes.write_pictures(tmp_path / split, count=count)
        source = fakes.load("folder", path=str(tmp_path), batch_size=4, validation=3)
        assert source.spec.class_names == ("ant", "bee", "cat")
        sizes = {"train": 18, "validation": 6} if validation else {"train": 15, "validation": 3}
        assert source.size == {**sizes, "test": 3}

    def test_a_class_may_be_called_train(self, tmp_path):
        fakes.write_pictures(tmp_path, names=("car", "train"))
        source = fakes.load("folder", path=str(tmp_path), batch_size=4)
        assert source.spec.class_names == ("car", "train")

    def test_refuses_folders_that_are_no_classes(self, tmp_path):
        def refused(pattern):
            with pytest.raises(UserError, match=pattern) as caught:
                fakes.load("folder", path=str(tmp_path), batch_size=2)
            assert "\n" not in str(caught.value)

        fakes.write_pictures(tmp_path / "part1")
        fakes.write_pictures(tmp_path / "part2")
        refused(r"part1 holds only folders; a class holds pictures")
        (tmp_path / "part1").rename(tmp_path / "Testset")
        refused(r"has a folder Testset but no train split; add train/CLASS")
        (tmp_path / "part2").rename(tmp_path / "train")
        fakes.write_pictures(tmp_path / "test")
        refused(r"Testset and test are both test; remove one")
        (tmp_path / "test").rename(tmp_path / "more")
        with pytest.warns(UserWarning, match=r"1 folders are no split and left out: more$"):
            fakes.load("folder", path=str(tmp_path), batch_size=4)

    def test_hidden_files_are_skipped_and_others_counted(self, tmp_path):
        fakes.write_pictures(tmp_path)
        hidden = (".ipynb_checkpoints/a.png", "ant/._0.png", "ant/.cache/b.png", "__MACOSX/c.png")
        for name in (*hidden, "bee/notes.txt", "ant/sub/Thumbs.db", "loose.png"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"none")
        with pytest.warns(UserWarning, match="left out") as caught:
            source = fakes.load("folder", path=str(tmp_path), batch_size=4)
        (message,) = (str(warning.message) for warning in caught)
        listing = "ant/sub/Thumbs.db, bee/notes.txt, loose.png"
        assert message.endswith(f"3 files are no pictures of a class and left out: {listing}")
        assert sum(source.size.values()) == 18

    @pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.ppm", "a.jfif", "a.jp2", "a"])
    def test_what_pillow_reads_is_read(self, tmp_path, name):
        fakes.write_pictures(tmp_path)
        kind = None if "." in name else "PNG"
        Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "ant" / name, kind)
        source = fakes.load("folder", path=str(tmp_path), batch_size=4)
        assert sum(source.size.values()) == 19

    def test_linked_folders_are_followed_once(self, tmp_path):
        root = tmp_path / "set"
        fakes.write_pictures(root, names=("ant", "bee"))
        fakes.write_pictures(tmp_path / "elsewhere", names=("cat", "more"))
        (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
        (root / "ant" / "more").symlink_to(tmp_path / "elsewhere" / "more")
        (root / "ant" / "again").symlink_to(tmp_path / "elsewhere" / "more")
        (root / "bee" / "circle").symlink_to(root / "bee")
        (root / "bee" / "up").symlink_to(root)
        source = fakes.load("folder", path=str(root), batch_size=4, validation=0, test=1)
        assert source.arrays is not None
        labels = [source.arrays["label"], next(source.evals["test"]())["label"][:1]]
        assert np.bincount(np.concatenate(labels)).tolist() == [12, 6, 6]

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_broken_pictures_are_found_before_training_or_skipped(self, tmp_path, split):
        for folder in ("train", "test"):
            fakes.write_pictures(tmp_path / folder)
        for number in (0, 3):
            file = tmp_path / split / "ant" / f"{number}.png"
            file.write_bytes(file.read_bytes()[:-30])
        keys = {"path": str(tmp_path), "batch_size": 4, "on_device": False, "eval_batch_size": 4}
        if split == "test":
            source = fakes.load("folder", **keys)
            assert source.verify is not None
            message = r"test/ant/0\.png is not a readable.*unreadable=skip \(2 such pictures\)"
            with pytest.raises(UserError, match=message):
                source.verify()
        with pytest.warns(UserWarning, match=rf"2 unreadable pictures .*{split}/ant/0.png, "):
            source = fakes.load("folder", **keys, unreadable="skip")
        assert source.verify is not None
        source.verify()
        assert sum(source.size.values()) == 34


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

    def test_hidden_files_are_skipped_and_broken_pictures_found_before_training(self, tmp_path):
        archive(tmp_path)
        base = tmp_path / "tiny-imagenet-200"
        (base / "train" / "n00000000" / "images" / "._n.JPEG").write_bytes(b"none")
        file = base / "val" / "images" / "val_1.JPEG"
        file.write_bytes(file.read_bytes()[:200])
        keys = {"path": str(tmp_path), "batch_size": 4, "on_device": False}
        source = fakes.load("tiny_imagenet", **keys)
        assert source.size["train"] + source.size["validation"] == 15
        assert source.verify is not None
        with pytest.raises(UserError, match=r"example . of data\.name.*\(1 such pictures\)"):
            source.verify()

    def test_incomplete_archive(self, tmp_path):
        archive(tmp_path)
        (tmp_path / "tiny-imagenet-200" / "wnids.txt").unlink()
        with pytest.raises(UserError, match=r"wnids\.txt is missing; data\.path="):
            fakes.load("tiny_imagenet", path=str(tmp_path), batch_size=4)
