"""Data and weights in a bucket are those of a disk; `build` reads them, nothing is trained."""

import types

import jax
import numpy as np
import pytest
from PIL import Image

from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.build.data import load
from kdjax.experiment.config import resolve
from kdjax.models.io import export as model_export
from tests.data import tiny_coco, tiny_tables, tiny_text, tiny_tfds
from tests.faults.commands import base


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bucket(service):
    return service.create("data-sets")


def npz(folder):
    rng = np.random.default_rng(0)
    folder.mkdir()
    images = {f"x_{s}": rng.integers(0, 256, (40, 4, 4, 1), np.uint8) for s in ("train", "test")}
    labels = {f"y_{s}": np.arange(40) % 3 for s in ("train", "test")}
    np.savez(folder / "images.npz", **images, **labels)
    return {"name": "npz", "path": str(folder / "images.npz"), "validation": 0.2}


def pictures(folder):
    for number in range(24):
        file = folder / ("train", "test")[number % 2] / "abc"[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 6, 3), 10 * number, np.uint8)).save(file)
    return {"name": "folder", "path": str(folder), "validation": 0.25}


def glue(folder):
    options = {"vocabulary_size": 90, "max_length": 24, "validation": 0.2}
    path = str(tiny_text.write(folder, "glue/mrpc"))
    return {"name": "text", "task": "glue/mrpc", "path": path, **options}


def coco(folder):
    path = str(tiny_coco.write(folder, {"train": 10, "val": 3}))
    return {"name": "coco", "path": path, "image_size": 64, "max_boxes": 3, "validation": 2}


def tfds_set(folder):
    tiny_tfds.prepare(folder)
    return {"name": "grey_squares", "path": str(folder), "validation": 0.2}


def shards(folder):
    for split, count in (("train", 20), ("test", 6)):
        tiny_tables.write_shard(folder / f"{split}-0.tar", tiny_tables.samples(count))
    return {"name": "webdataset", "path": str(folder), "validation": 0.25}


def with_data(table):
    role = {"model": {"name": "mlp", "hidden": (4,)}, "terms": {"ce": {}}}
    return base(data=table, roles={"student": role}, batch_size=8)


@pytest.mark.parametrize(
    "make", [npz, pictures, glue, coco, tfds_set, shards], ids=lambda make: make.__name__
)
def test_data_in_a_bucket_is_that_of_a_disk(make, service, bucket, tmp_path):
    table = make(tmp_path / make.__name__)
    service.upload("data-sets", tmp_path / make.__name__, make.__name__)
    address = table["path"].replace(str(tmp_path), bucket)
    paths = (table["path"], address)
    configs = (resolve.from_dict(with_data({**table, "path": path})) for path in paths)
    local, remote = (load(config).source for config in configs)
    assert remote.digest == local.digest
    assert remote.spec == local.spec
    first, second = (next(source.train(0, 0)) for source in (local, remote))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("free", "is_copied"), [(10**9, True), (30_000, False)])
def test_shards_are_streamed_if_they_would_fill_half_of_the_disk(
    free, is_copied, service, bucket, tmp_path, monkeypatch
):
    table = shards(tmp_path / f"shards{free}") | {"on_device": False}
    service.upload("data-sets", tmp_path / f"shards{free}", f"shards{free}")
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=free))
    remote = {**table, "path": f"{bucket}/shards{free}"}
    sources = (load(resolve.from_dict(with_data(each))).source for each in (table, remote))
    first, second = (next(source.train(0, 0)) for source in sources)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert bool([*(tmp_path / "cache").rglob("*.tar")]) == is_copied


def test_a_tokenizer_in_a_bucket_has_the_files_beside_it(service, bucket, tmp_path):
    table = glue(tmp_path / "glue") | {"validation": 0.2}
    (tmp_path / "words").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"Aa", *(f"##{x}" for x in "aeinorst")]
    (tmp_path / "words" / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "words" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    service.upload("data-sets", tmp_path / "words", "words")
    del table["vocabulary_size"]
    for file in (f"{bucket}/words/vocab.txt", str(tmp_path / "words" / "vocab.txt")):
        config = resolve.from_dict(with_data({**table, "vocabulary": file}))
        tokenizer = load(config).dataset.tokenizer
        assert tokenizer.encoder.token_to_id("A") in tokenizer.encoder.encode("A").ids


def test_weights_in_a_bucket_are_those_of_a_disk(service, bucket, tmp_path):
    data = npz(tmp_path / "npz")
    role = {"model": {"name": "mlp", "hidden": (4,)}}
    run = build(with_data(data))
    batch = {"image": jax.ShapeDtypeStruct((1, 4, 4, 1), "float32")}
    model = run.variants[0].players["student"].model
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    network = {"model": {"name": "mlp", "hidden": [4]}, **run.source.spec._asdict()}
    model_export.save(tmp_path / "teacher", weights, network)
    service.upload("data-sets", tmp_path / "teacher", "teacher")
    service.write("data-sets", "run/checkpoints/plan.json", b"{}")

    def frozen(path):
        config = with_data(data)
        config["roles"]["teacher"] = {**role, "checkpoint": path}
        config["roles"]["student"]["terms"]["forward_kl"] = {"toward": "teacher"}
        return config

    built = build(frozen(f"{bucket}/teacher"))
    assert built.config.roles["teacher"].checkpoint == f"{bucket}/teacher"
    read = built.variants[0].initial_variables["teacher"]
    assert all(map(np.array_equal, jax.tree.leaves(read), jax.tree.leaves(weights)))
    for path, words in (("none", "no such object"), ("run", "is the workdir of a run")):
        with pytest.raises(UserError, match=words) as refusal:
            build(frozen(f"{bucket}/{path}"))
        assert "roles.teacher.checkpoint" in str(refusal.value)
    with pytest.raises(UserError, match=r"data\.path: gs://data-sets/none: there is no such"):
        build(with_data({**data, "path": f"{bucket}/none"}))
