"""Weights from PyTorch's names and through safetensors, against golden and real networks."""

import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.types import UserError, Variables

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
DATA = pathlib.Path(__file__).parents[2] / "../shared/data"
SHAPES = json.loads((GOLDEN / "vision_state_shapes.json").read_text())


def _weights(name):
    """Regenerate the weights with which the golden outputs were made."""
    tensors = {}
    for tensor, shape in SHAPES[name].items():
        noise = np.random.default_rng(zlib.crc32(tensor.encode())).normal(size=shape)
        if len(shape) > 1:
            noise *= np.sqrt(2 / np.prod(shape[1:]))
        elif tensor.endswith("running_var"):
            noise = 1 + 0.2 * np.abs(noise)
        elif tensor.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise = 0.1 * noise
        tensors[tensor] = noise.astype(np.float32)
    return tensors


def _relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", SHAPES)
def test_golden_outputs_in_evaluation_and_training(name):
    golden = np.load(GOLDEN / "vision_models.npz")
    model = models.build(name, num_classes=100)
    variables = models.load_torch(name, _weights(name))
    batch = {"image": golden["x"].transpose(0, 2, 3, 1)}
    for mode in ("eval", "train"):
        outputs, _ = jax.jit(lambda v, train=mode == "train": model.apply(v, batch, train=train))(
            variables
        )
        # float32 through up to 20 layers against float64
        assert _relative(outputs.logits, golden[f"{name}/{mode}/logits"]) < 5e-6
        assert _relative(outputs.features["pooled"], golden[f"{name}/{mode}/pooled"]) < 5e-6
        layers = ("stem", "stage1", "stage2", "stage3", "pooled")
        means = [outputs.features[layer].mean() for layer in layers]
        np.testing.assert_allclose(means, golden[f"{name}/{mode}/feat_means"], rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet20", "resnet56"])
def test_real_teachers_agree_with_their_logits(name):
    path = DATA / "teachers" / f"{name}_cifar10_jpegft.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    images = np.load(DATA / "cifar10_jpeg_5k.npz")["x_test"][:32] / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    batch = {"image": np.float32((images - mean) / std)}
    model = models.build(name, num_classes=10, shortcut="pad")
    variables = models.load_torch(name, np.load(path))
    found = jax.jit(lambda v: model.apply(v, batch, train=False)[0].logits)(variables)
    reference = np.load(DATA / "teachers/reference_logits.npz")
    expected = reference[f"{name}_cifar10_jpegft__x_test"][:32]
    # float32 on both sides, in another order of summation
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_wrappers_and_counters_in_a_checkpoint_are_ignored():
    tensors = _weights("wrn_16_2")
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    wrapped["module.bn1.num_batches_tracked"] = np.array(7)
    a, b = (models.load_torch("wrn_16_2", t) for t in (tensors, wrapped))
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_one_line_lists_all_that_is_wrong_with_a_checkpoint():
    tensors = _weights("resnet20")
    tensors["head.bias"] = tensors.pop("bn1.bias")
    tensors["conv1.weight"] = tensors["conv1.weight"][:8]
    with pytest.raises(UserError) as caught:
        models.load_torch("resnet20", tensors)
    assert str(caught.value) == (
        'the tensors are not those of "resnet20"; missing: bn1.bias; unexpected: head.bias; '
        "of another shape: conv1.weight (8, 3, 3, 3) instead of (16, 3, 3, 3)"
    )
    with pytest.raises(UserError, match="missing: layer1"):
        models.load_torch("resnet8", _weights("wrn_16_2"))
    with pytest.raises(UserError, match=r'no "fc\.weight"'):
        models.load_torch("resnet8", {"a": np.zeros(3), "b": np.zeros(3)})
    with pytest.raises(UserError, match='"mlp" has no PyTorch names'):
        models.load_torch("mlp", {})


def _tiny():
    model = models.build("cnn", num_classes=3, widths=(4,))
    batch = {"image": jnp.zeros((1, 8, 8, 1))}
    return model, batch, jax.jit(model.init)(jax.random.key(0), batch)


def test_safetensors_round_trip(tmp_path):
    model, batch, variables = _tiny()
    # nested as an adapter nests, and a transposed view, whose buffer is in another order
    params = {
        "network": variables.params,
        "adapter": {"kernel": np.float32([[1, 2, 3], [4, 5, 6]]).T},
    }
    params["adapter"]["scale"] = np.float32(2)
    nested = Variables(params, variables.stats)
    path = tmp_path / "model.safetensors"
    models.to_safetensors(nested, path, {"model": "cnn"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    tensors = models.from_safetensors(path)
    assert set(tensors) == set(models.flatten(nested))
    assert "params/network/conv1/kernel" in tensors
    assert "stats/batch_stats/bn1/mean" in tensors
    back = models.restore(nested, tensors)
    assert jax.tree.structure(back) == jax.tree.structure(nested)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(nested), strict=True):
        assert a.shape == np.shape(b)
        np.testing.assert_array_equal(a, b)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    again = models.restore(shapes, models.flatten(variables))
    np.testing.assert_array_equal(again.params["fc"]["kernel"], variables.params["fc"]["kernel"])


def test_restore_lists_all_that_is_wrong():
    _, _, variables = _tiny()
    tensors = models.flatten(variables)
    tensors["params/extra"] = tensors.pop("params/fc/bias")
    tensors["params/fc/kernel"] = np.zeros((4, 5))
    with pytest.raises(UserError) as caught:
        models.restore(variables, tensors)
    assert str(caught.value) == (
        "the weights do not fit this network; missing: params/fc/bias; unexpected: params/extra; "
        "of another shape: params/fc/kernel (4, 5) instead of (4, 3)"
    )


def test_broken_files_are_named(tmp_path):
    _, _, variables = _tiny()
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match=f"{path}: no such file"):
        models.from_safetensors(path)
    models.to_safetensors(variables, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=f"{path}: not a whole safetensors file"):
        models.from_safetensors(path)
    with pytest.raises(UserError, match="cannot be written"):
        models.to_safetensors(variables, tmp_path / "missing" / "model.safetensors")


def test_a_slash_in_a_name_is_refused():
    with pytest.raises(UserError, match='holds a "/"'):
        models.flatten(Variables({"a/b": np.zeros(1)}, {}))
