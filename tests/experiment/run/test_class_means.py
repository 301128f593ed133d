"""Class means of a frozen network: their values, and their use and storage in a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import data, models
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import frozen_teacher
from kdjax.experiment.run.class_means import MeansOptions, cached_class_means, class_means
from kdjax.experiment.run.frozen_teacher import attach_frozen_extras
from kdjax.experiment.run.train import train
from kdjax.train import parallel
from tests.data import fakes


def source(**options):
    settings = {"shape": (4, 4, 1), "num_classes": 3, "batch_size": 16, "eval_batch_size": 16}
    return fakes.load("synthetic", validation=0.2, **{**settings, **options})


@pytest.fixture(scope="module")
def network():
    model = models.build("mlp", num_classes=3, hidden=(5,))
    variables = jax.jit(model.init)(jax.random.key(0), {"image": jnp.zeros((1, 4, 4, 1))})
    return model, variables


def test_class_means_match_float64(network):
    model, variables = network
    dataset = source()
    prepare = data.prepare(dataset.spec)
    batch = prepare({k: jnp.asarray(v) for k, v in dataset.arrays.items()})
    features = np.asarray(model.apply(variables, batch, train=False)[0].features["pooled"])
    labels = dataset.arrays["label"]
    expected = [features[labels == c].astype(np.float64).mean(axis=0) for c in range(3)]
    np.testing.assert_allclose(class_means(model, variables, dataset), expected, rtol=1e-5)


@pytest.mark.parametrize("augment", ["none", "crop_flip"])
def test_class_means_do_not_depend_on_devices_or_batch_size(network, augment):
    one = class_means(*network, source(), MeansOptions(augment=augment))
    layout = parallel.pmap_data(8, stacked_batch=False)
    eight = class_means(
        *network, source(eval_batch_size=64), MeansOptions(augment=augment), layout=layout
    )
    np.testing.assert_allclose(eight, one, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(
        class_means(*network, source(), MeansOptions(augment=augment)), one
    )


def test_a_class_without_examples_is_named(network):
    dataset = source()
    lacking = {k: v[dataset.arrays["label"] != 1] for k, v in dataset.arrays.items()}

    def batches():
        size = len(lacking["label"])
        extra = {"id": np.arange(size, dtype=np.int32), "mask": np.ones(size, np.float32)}
        yield {**lacking, **extra}

    dataset = dataset._replace(evals={**dataset.evals, "train": batches})
    name = dataset.spec.class_names[1]
    with pytest.raises(UserError, match=f"no training examples of class {name}"):
        class_means(*network, dataset)
    with pytest.raises(UserError, match="no layer 'stage9'"):
        class_means(*network, source(), MeansOptions("stage9"))


def test_class_means_are_computed_once_for_a_network_and_its_data(network, tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.ones((3, 5), np.float32) * len(calls)

    _, variables = network
    other = jax.tree.map(lambda x: x + 1, variables)
    for weights, number in [(variables, 1), (variables, 2), (other, 1)]:
        first = cached_class_means(tmp_path, weights, {"data": number}, compute)
        again = cached_class_means(tmp_path, weights, {"data": number}, compute)
        np.testing.assert_array_equal(again, first)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", ["other width", "cut"])
def test_the_error_for_a_mismatched_file_names_it(damage, network, tmp_path):
    compute = lambda: np.ones((3, 5), np.float32)  # noqa: E731
    cached_class_means(tmp_path, network[1], {}, compute, (3, 5))
    (file,) = (tmp_path / "class_means").glob("*.npz")
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:40])
        with pytest.raises(UserError, match=rf"{file.name} cannot be read .*; remove it"):
            cached_class_means(tmp_path, network[1], {}, compute, (3, 5))
        return
    with pytest.raises(UserError, match=r"shape \(3, 5\), but the network needs \(3, 6\); remove"):
        cached_class_means(tmp_path, network[1], {}, compute, (3, 6))


def config(**student):
    optimizer = {"name": "sgd", "learning_rate": 0.05}
    player = {"optimizer": optimizer, "terms": {"ce": {}}}
    adapters = {"projected": {"kind": "norm_direction", "width": 6}}
    return {
        "num_steps": 4,
        "batch_size": 16,
        "devices": 1,
        "tensorboard": False,
        "data": {"name": "synthetic", "shape": (4, 4, 1), "num_classes": 3, "validation": 0.2},
        "roles": {
            "teacher": {**player, "model": {"name": "mlp", "hidden": (6,)}},
            "student": {**player, "model": {"name": "mlp", "hidden": (4,)}, "adapters": adapters},
        },
        "variants": {
            "alone": {},
            "nd": {
                "roles": {
                    "teacher": {"terms": {"ce": None}, "from_variant": "alone"},
                    "student": {
                        "terms": {
                            "norm_direction": {
                                "toward": "teacher",
                                "own_layer": "projected",
                                **student,
                            }
                        }
                    },
                }
            },
        },
        "sweep": {"seed": (0, 1)},
    }


def test_nd_uses_the_teacher_and_the_means_of_each_seed(tmp_path):
    (tmp_path / "run").mkdir()
    outcomes = train(build(config()), tmp_path / "run", lambda _: None)
    assert [outcome.name for outcome in outcomes] == ["alone", "nd"]
    assert len(list((tmp_path / "run" / "class_means").glob("*.npz"))) == 2
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "student/norm_direction/raw" in lines


def test_changed_data_have_class_means_of_their_own(tmp_path, monkeypatch):
    run, calls = build(config()), []

    def compute(model, variables, source, options):
        calls.append(source.digest)
        return np.zeros((3, 6), np.float32)

    monkeypatch.setattr(frozen_teacher, "class_means", compute)
    (variant,) = (variant for variant in run.variants if variant.name == "nd")
    model, _ = variant.class_means["teacher"]
    shapes = jax.eval_shape(model.init, jax.random.key(0), data.example_batch(run.source))
    weights = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    for digest in ({"labels": "1"}, {"labels": "1"}, {"labels": "2"}):
        source = run.source._replace(digest=digest)
        changed = run._replace(data=run.data._replace(source=source))
        attach_frozen_extras(changed, variant, tmp_path, True, "teacher", weights)
    assert calls == [{"labels": "1"}, {"labels": "2"}]


def test_a_trained_teacher_has_no_class_means():
    settings = config()
    settings["variants"]["nd"]["roles"]["teacher"] = {}
    with pytest.raises(
        UserError, match="class means need a frozen network, but teacher is trained"
    ):
        build(settings)


def test_different_widths_need_an_adapter():
    settings = config(own_layer="pooled")
    del settings["roles"]["student"]["adapters"]
    with pytest.raises(UserError, match=r"'pooled' of student is \(4,\).*'pooled' of teacher is"):
        build(settings)
