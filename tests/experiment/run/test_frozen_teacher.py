"""The cache of a frozen network: equal training without its forward pass."""

import json

import jax
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.experiment.build.build import build
from kdjax.experiment.run import frozen_teacher
from kdjax.experiment.run.results import load_results
from kdjax.experiment.run.train import evaluate, train

TERMS = {
    "ce": {},
    "forward_kl": {"toward": "teacher", "temperature": 2.0},
    "feature_mse": {"toward": "teacher"},
    "norm_direction": {"toward": "teacher"},
}


def config(*, cache, augment="none", frozen=True):
    optimizer = {"name": "sgd", "learning_rate": 0.05}
    player = {"optimizer": optimizer, "terms": {"ce": {}}}
    frozen_teacher = {"terms": {"ce": None}, "from_variant": "alone"} if frozen else {}
    return {
        "num_steps": 6,
        "batch_size": 16,
        "log_every": 1,
        "devices": 1,
        "tensorboard": False,
        "data": {
            "name": "synthetic",
            "shape": (8, 8, 1),
            "num_classes": 3,
            "validation": 0.2,
            "augment": augment,
        },
        "roles": {
            "teacher": {**player, "model": {"name": "cnn", "widths": (4,)}},
            "student": {**player, "model": {"name": "cnn", "widths": (4,)}},
        },
        "variants": {
            "alone": {},
            "kd": {
                "roles": {
                    "teacher": {**frozen_teacher, "cache": cache},
                    "student": {"terms": TERMS},
                }
            },
        },
        "sweep": {"seed": (0, 1)},
    }


def test_the_cache_does_not_change_the_results(tmp_path):
    lines = []
    for cache in (False, True):
        (tmp_path / str(cache)).mkdir()
        train(build(config(cache=cache)), tmp_path / str(cache), lambda _: None)
        text = (tmp_path / str(cache) / "metrics.jsonl").read_text()
        lines.append([json.loads(line) for line in text.splitlines()])
    for plain, cached in zip(*lines, strict=True):
        assert list(plain) == list(cached)
        for name, value in plain.items():
            if isinstance(value, float):
                np.testing.assert_allclose(cached[name], value, rtol=2e-4, atol=1e-5, err_msg=name)
            else:
                assert cached[name] == value


def test_a_finished_run_is_read_without_computing_the_cache(tmp_path, monkeypatch):
    run = build(config(cache=True))
    trained = train(run, tmp_path, print)
    monkeypatch.setattr(frozen_teacher, "compute_outputs", pytest.fail)
    again = evaluate(run, tmp_path, print)
    assert [v.members for v in again] == [v.members for v in trained]
    networks = load_results(run, tmp_path, print).networks(run.variants[1])
    first = load_results(run, tmp_path, print).networks(run.variants[0])
    jax.tree.map(
        np.testing.assert_array_equal,
        models.strip_wrappers(networks["teacher"]),
        models.strip_wrappers(first["teacher"]),
    )


def test_the_network_is_not_in_the_cached_step():
    """The traced step does not contain the teacher's convolutions."""
    from kdjax.data import example_batch

    counts = []
    for cache in (False, True):
        run = build(config(cache=cache))
        variant = run.variants[1]
        method, key = variant.method(None), jax.random.key(0)
        raw = example_batch(run.source)
        batch = jax.eval_shape(run.prepare_train, raw, key)
        shapes = jax.eval_shape(method.init, key, batch)
        params = {role: v.params for role, v in shapes.items()}
        stats = {role: v.stats for role, v in shapes.items()}
        text = str(jax.make_jaxpr(method.loss)(params, stats, batch, variant.hparams[0], key))
        counts.append(text.count("conv_general_dilated") + text.count("dot_general"))
    assert counts[1] < counts[0]


def test_an_invalid_cache_is_an_error():
    with pytest.raises(UserError, match="which changes the images at every step"):
        build(config(cache=True, augment="crop_flip"))
    with pytest.raises(UserError, match="but teacher trains: its outputs change"):
        build({**config(cache=True, frozen=False)})
