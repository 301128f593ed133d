"""Pairs of views: sampling, splits by writer, mutual information, and errors."""

import math
from functools import partial

import numpy as np
import pytest
import tensorflow_datasets as tfds

from kdjax import data
from kdjax.data.pairs import dataset as pairs
from kdjax.data.pairs import omniglot
from kdjax.data.pairs import scenes as views
from kdjax.data.pairs.dataset import SPLITS
from kdjax.errors import UserError
from tests.data import fakes

SIZES = {5: 3, 2: 6, 9: 4}  # alphabet -> number of characters, not in order of size
DRAWERS = 10


def write(path, **changes):
    """Write drawings of 4 x 4 pixels; the first two encode the character and the writer."""
    alphabet, character, image, number = [], [], [], 0
    for name, size in SIZES.items():
        for _ in range(size):
            for drawer in range(DRAWERS):
                picture = np.zeros((4, 4), np.uint8)
                picture[0, :2] = number, drawer
                alphabet.append(name)
                character.append(number)
                image.append(picture)
            number += 1
    contents = {
        "images_28": np.stack(image),
        "alphabet": alphabet,
        "character": character,
        **changes,
    }
    np.savez(path, **{key: value for key, value in contents.items() if value is not None})
    return str(path)


def options(path=None, **changes):
    keys = {"batch_size": 6, "eval_batch_size": 8, "path": path, **changes}
    return fakes.options(data.PairOptions, **keys)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("drawings") / "omniglot.npz")


def same(left, right):
    return set(left) == set(right) and all(np.array_equal(left[k], right[k]) for k in left)


def everything(batches):
    parts = list(batches())
    real = np.concatenate([b["mask"] for b in parts]) > 0
    return {key: np.concatenate([b[key] for b in parts])[real] for key in parts[0]}


class TestDrawings:
    def test_alphabets_by_size_and_exact_information(self, file, tmp_path):
        source = data.load_pairs("omniglot", *options(file, tiles=3))
        assert source.spec.latents == (6, 4, 3)
        information = source.spec.mutual_information
        assert information == pytest.approx(math.log(6 * 4 * 3), rel=1e-12)
        named = write(tmp_path / "named.npz", alphabet_names=["Grebo", "Keble", "Futurama", "ULOG"])
        assert data.load_pairs("omniglot", *options(named, tiles=3)).spec == source.spec
        fewer = data.load_pairs("omniglot", *options(file, tiles=2, characters=3))
        assert fewer.spec.latents == (3, 3)

    def test_the_view_has_the_next_character_by_any_writer(self, file):
        source = data.load_pairs("omniglot", *options(file, tiles=2, layout="stacked"))
        first = np.array([3, 9])  # ids of the two largest alphabets' first characters
        drawers = set()
        for step in range(30):
            batch = next(source.train(step, 1))
            z = batch["label"]
            assert batch["image"].shape == (6, 4, 4, 2)
            np.testing.assert_array_equal(batch["image"][:, 0, 0], first + z)
            np.testing.assert_array_equal(batch["view"][:, 0, 0], first + (z + 1) % [6, 4])
            drawers |= set(zip(*(batch[k][:, 0, 1, 0] for k in ("image", "view")), strict=True))
        assert len(drawers) > 20  # of 49 pairs of the seven training writers

    def test_no_drawing_is_in_two_splits(self, file):
        source = data.load_pairs("omniglot", *options(file, eval_pairs=400))
        seen = {}
        for split in SPLITS:
            actual = everything(source.evals[split])
            assert len(actual["label"]) == source.size[split] or split == "train"
            seen[split] = set(np.concatenate([actual[k][:, 0, 1, 0] for k in ("image", "view")]))
        stream = [next(source.train(step, 0)) for step in range(60)]
        assert {int(v) for b in stream for v in b["image"][:, 0, 1, 0]} == seen["train"]
        assert not seen["train"] & (seen["validation"] | seen["test"])
        assert not seen["validation"] & seen["test"]
        assert set().union(*seen.values()) == set(range(DRAWERS))

    def test_the_same_seed_and_step_give_the_same_batch(self, file):
        source = data.load_pairs("omniglot", *options(file, tiles=2))
        walk = source.train(0, 3)
        batches = [next(walk) for _ in range(5)]
        for step in (0, 2, 4):
            assert same(next(source.train(step, 3)), batches[step])
        assert not same(next(source.train(0, 4)), batches[0])
        assert not same(batches[1], batches[0])
        assert batches[2]["id"].tolist() == list(range(12, 18))
        assert same(everything(source.evals["test"]), everything(source.evals["test"]))

    def test_factors_are_uniform_and_independent(self, file):
        source = data.load_pairs("omniglot", *options(file, tiles=2, eval_pairs=24000))
        z = everything(source.evals["train"])["label"]
        counts = np.zeros((6, 4))
        np.add.at(counts, tuple(z.T), 1)
        expected = 24000 / 24
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < 49.7  # chi-square with 23 degrees of freedom, p = .001

    def test_a_pool_is_traversed_in_epochs(self, file):
        source = data.load_pairs("omniglot", *options(file, pool=13))
        assert source.size["train"] == 13
        walk = source.train(0, 0)
        epoch = [next(walk) for _ in range(2)]
        again = [next(walk) for _ in range(20)]
        ids = np.concatenate([b["id"] for b in epoch])
        assert len(set(ids.tolist())) == 12
        views_by_id = {}
        for batch in [*epoch, *again]:
            for number, image, view in zip(batch["id"], batch["image"], batch["view"], strict=True):
                pair = (image.tobytes(), view.tobytes())
                assert views_by_id.setdefault(int(number), pair) == pair
        assert set(views_by_id) == set(range(13))
        other = next(source.train(0, 1))
        assert not same(other, epoch[0])

    def test_grids(self):
        tiles = np.arange(6 * 4, dtype=np.uint8).reshape(1, 6, 2, 2)
        grid = pairs.arrange(tiles, "grid")
        assert grid.shape == (1, 4, 6, 1)
        for i in range(6):
            row, column = divmod(i, 3)
            part = grid[0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2, 0]
            np.testing.assert_array_equal(part, tiles[0, i])
        assert pairs.arrange(np.zeros((1, 9, 2, 2)), "grid").shape == (1, 6, 6, 1)
        assert pairs.arrange(tiles, "stacked").shape == (1, 2, 2, 6)

    def test_tiles_shrink_by_averaging(self, file):
        dataset = data.load_pairs("omniglot", *options(file))
        small = data.load_pairs("omniglot", *options(file, tile_size=2))
        image = next(dataset.train(0, 0))["image"].astype(float)
        mean = image.reshape(6, 2, 2, 2, 2, 1).mean((2, 4))
        np.testing.assert_allclose(next(small.train(0, 0))["image"], mean, atol=0.5)

    def test_digits_are_every_alphabet(self, tmp_path):
        source = data.load_pairs("pairs_digits", *options(tiles=4))
        assert source.spec.latents == (10,) * 4
        assert source.spec.shape == (16, 16, 1)
        batch = next(source.train(0, 0))
        assert batch["image"].max() == source.spec.scale == 16
        shape = {"shape": (4, 4), "classes": 2, "n_train": 80}
        mnist = fakes.write_npz(tmp_path / "x.npz", **fakes.arrays(**shape))
        assert data.load_pairs("pairs_digits", *options(mnist, tiles=2)).spec.latents == (2, 2)
        fakes.write_npz(tmp_path / "x.npz", **fakes.arrays(**shape, dtype=np.float32))
        with pytest.raises(UserError, match=r"images are float32 .*drawings are uint8"):
            data.load_pairs("pairs_digits", *options(mnist, tiles=2))

    def test_mocked_tfds_omniglot(self, tmp_path):
        with tfds.testing.mock_data(num_examples=8):
            actual = omniglot.omniglot(str(tmp_path))
        assert actual.image.shape == (16, 28, 28)
        assert actual.image.dtype == np.uint8
        assert len(actual.alphabets[0]) >= len(actual.alphabets[-1])

    def test_real_drawings(self):
        path = fakes.SHARED / "omniglot_8alphabets.npz"
        if not path.exists():
            pytest.skip("omniglot_8alphabets.npz is not on this disk")
        source = data.load_pairs("omniglot", *options(str(path), tiles=4, tile_size=14))
        assert source.spec.latents == (47, 42, 40, 26)
        assert source.spec.shape == (28, 28, 1)
        with pytest.raises(UserError, match=r"data.tiles is 9, but .* has 8 alphabets"):
            data.load_pairs("omniglot", *options(str(path), tiles=9))


class TestOthers:
    def test_categories(self):
        source = data.load_pairs("pairs_synthetic", *options(tiles=2, characters=3))
        assert source.spec.mutual_information == pytest.approx(2 * math.log(3))
        actual = everything(source.evals["train"])
        seen = {}
        for z, image, view in zip(actual["label"], actual["image"], actual["view"], strict=True):
            key = tuple(z.tolist())
            assert seen.setdefault(key, (image.tobytes(), view.tobytes()))[0] == image.tobytes()
        assert len({image for image, _ in seen.values()}) == 9  # the factors have different codes
        assert len({view for _, view in seen.values()}) == 9

    def test_two_views_of_a_scene_differ_in_orientation_only(self):
        sizes = (2, 3, 4)
        latents = np.stack(np.unravel_index(np.arange(24), sizes), axis=1)[::-1]

        def get(row):
            return np.full((4, 4, 3), row, np.uint8)

        small, _, splitting = options(validation=1, test=2, tile_size=4)
        actual = views.multiview(get, latents, sizes, small, splitting)
        expected = math.log(2) + math.log(4 / 3)
        assert actual.mutual_information == pytest.approx(expected)
        scenes = {}
        for split in SPLITS:
            image, view, z = actual.make(actual.draw[split](np.random.default_rng(0), 300))
            first, second = (latents[v[:, 0, 0, 0]] for v in (image, view))
            np.testing.assert_array_equal(first, z)
            np.testing.assert_array_equal(first[:, :-1], second[:, :-1])
            assert (first[:, -1] != second[:, -1]).all()
            scenes[split] = {tuple(row) for row in z[:, :-1].tolist()}
            assert {(int(a), int(b)) for a, b in zip(first[:, -1], second[:, -1], strict=True)} == {
                (a, b) for a in range(4) for b in range(4) if a != b
            }
        assert [len(scenes[split]) for split in SPLITS] == [3, 1, 2]
        some = views.multiview(get, latents[:-1], sizes, small, splitting)
        assert some.mutual_information is None

    def test_two_halves_of_a_face(self):
        picture = np.arange(6 * 6 * 3, dtype=np.uint8).reshape(6, 6, 3)
        attributes = np.array([[0, 1], [1, 1]])
        get = {split: (lambda row: picture + row, attributes) for split in SPLITS}
        actual = views.halves(get, 2, data.PairOptions(tile_size=6))
        image, view, z = actual.make(actual.draw["test"](np.random.default_rng(0), 40))
        assert image.shape == view.shape == (40, 6, 3, 3)
        np.testing.assert_array_equal(np.concatenate([image, view], 2)[0] - picture, z[0, 0])
        assert {tuple(row) for row in z.tolist()} == {(0, 1), (1, 1)}
        with pytest.raises(UserError, match=r"data.tile_size is 5; it must be even"):
            views.halves(get, 2, data.PairOptions(tile_size=5))

    def test_mocked_tfds(self, tmp_path):
        with tfds.testing.mock_data(num_examples=12):
            faces = data.load_pairs("celeb_a", *options(str(tmp_path), tile_size=16))
            assert faces.spec.latents == (2,) * 40
            assert faces.spec.shape == (16, 8, 3)
            assert next(faces.train(0, 0))["view"].shape == (6, 16, 8, 3)
            with pytest.raises(UserError, match="no scene is there in two orientations"):
                data.load_pairs("shapes3d", *options(str(tmp_path)))  # 12 of 32,000 scenes


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("omniglot", {"tiles": 4}, "data.tiles is 4, but .* has 3 alphabets, one a tile"),
        ("omniglot", {"tiles": 0}, "use 1 to 3"),
        ("omniglot", {"characters": 7}, "data.characters is 7, but .* has 6"),
        ("omniglot", {"tile_size": 3}, "data.tile_size is 3; it must divide the 4 pixels"),
        ("omniglot", {"layout": "row"}, "data.layout is 'row'; there are grid, stacked"),
        ("omniglot", {"pool": 5}, "batch_size is 6, but data.pool has 5 pairs"),
        ("omniglot", {"pool": 0}, "data.pool is 0"),
        ("omniglot", {"eval_pairs": 0}, "data.eval_pairs is 0"),
        ("omniglot", {"test": 9, "validation": 1}, "leave 0 for train"),
        ("omniglot", {"split_seed": -1}, "split_seed"),
        ("pairs_synthetic", {"characters": 1}, "two values or more"),
    ],
)
def test_errors_are_one_line(file, name, changes, words):
    with pytest.raises(UserError, match=words) as caught:
        data.load_pairs(name, *options(file if name == "omniglot" else None, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images_28": None}, "has no images_28; it needs images_28, alphabet, character"),
        ({"images_28": np.zeros((3, 4, 5), np.uint8)}, "must be uint8"),
        ({"alphabet": [1, 2]}, "alphabet has shape"),
        ({"character": np.arange(130) % 60}, "a character is in two alphabets"),
    ],
)
def test_invalid_files_are_errors(tmp_path, changes, words):
    path = write(tmp_path / "bad.npz", **changes)
    with pytest.raises(UserError, match=words):
        data.load_pairs("omniglot", *options(path))


def test_a_missing_file_is_an_error(tmp_path):
    missing = partial(data.load_pairs, "omniglot")
    with pytest.raises(UserError, match=r"data.path is .*, which cannot be read"):
        missing(*options(str(tmp_path / "none.npz")))
    with pytest.raises(UserError, match=r"or data.name=pairs_digits, which needs no file"):
        missing(*options(str(tmp_path)))
