"""Weights from PyTorch's names and through safetensors, against golden and real networks."""

import json
import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdjax import models
from kdjax.errors import UserError
from kdjax.types import Variables

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
DATA = pathlib.Path(__file__).parents[3] / "../shared/data"
SHAPES = json.loads((GOLDEN / "vision_state_shapes.json").read_text())
# Golden outputs in float64 from torch.nn.functional (PyTorch 2.13), written from the papers with
# the tensor names below: network, options and the size of the images.
BY_TORCH = {
    "ShuffleV1": ("ShuffleV1", {}, 32),
    "MobileNetV1": ("MobileNetV1", {}, 64),
    "ResNet18_imagenet": ("ResNet18", {"stem": "imagenet"}, 64),
}
# Float32 through up to 60 layers against float64. In training the last stages of the MobileNets
# are normalised over 8 numbers; a small standard deviation amplifies the rounding.
TOLERANCE = {"eval": 5e-6, "train": 2e-5}
LOOSE = {"MobileNetV1": 3e-4, "MobileNetV2": 3e-4}


def _weights(shapes):
    """Regenerate the weights of the golden outputs."""
    tensors = {}
    for tensor, shape in shapes.items():
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


def _zeros(name, options):
    """Return variables of a network without compilation."""
    model = models.build(name, num_classes=100, **options)
    batch = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def _relative(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max()


def _check_golden(name, options, tensors, image, golden, label):
    model = models.build(name, num_classes=100, **options)
    assert models.torch_options(name, tensors) == options
    variables = models.load_torch(name, tensors)
    batch = {"image": image.transpose(0, 2, 3, 1)}
    for mode in ("eval", "train"):
        outputs, _ = jax.jit(lambda v, train=mode == "train": model.apply(v, batch, train=train))(
            variables
        )
        tolerance = LOOSE.get(name, TOLERANCE[mode]) if mode == "train" else TOLERANCE[mode]
        assert _relative(outputs.logits, golden[f"{label}/{mode}/logits"]) < tolerance
        assert _relative(outputs.features["pooled"], golden[f"{label}/{mode}/pooled"]) < tolerance
        stages = sorted(key for key in outputs.features if re.fullmatch(r"stage\d", key))
        means = [outputs.features[layer].mean() for layer in ("stem", *stages, "pooled")]
        np.testing.assert_allclose(means, golden[f"{label}/{mode}/feat_means"], rtol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_golden_outputs_in_evaluation_and_training(name):
    golden = np.load(GOLDEN / "vision_models.npz")
    _check_golden(name, {}, _weights(SHAPES[name]), golden["x"], golden, name)


@pytest.mark.parametrize("label", BY_TORCH)
def test_outputs_equal_those_of_pytorch(label):
    name, options, size = BY_TORCH[label]
    image = np.load(GOLDEN / "vision_models.npz")["x"].repeat(size // 32, 2).repeat(size // 32, 3)
    shapes = {k: v.shape for k, v in models.to_torch(name, _zeros(name, options)).items()}
    golden = np.load(GOLDEN / "vision_torch.npz")
    _check_golden(name, options, _weights(shapes), image, golden, label)


@pytest.mark.parametrize("name", SHAPES)
def test_back_to_pytorch_is_exact(name):
    tensors = _weights(SHAPES[name])
    back = models.to_torch(name, models.load_torch(name, tensors))
    assert set(back) == set(tensors)
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor)
        assert back[key].flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "options", "has"),
    [
        ("resnet8", {"shortcut": "pad"}, "layer2.0.conv1.weight"),
        ("ResNet50", {}, "layer1.0.shortcut.1.running_var"),
        ("ResNet50", {"stem": "imagenet"}, "layer1.0.downsample.1.running_var"),
        ("ResNet18", {}, "linear.bias"),
        ("MobileNetV1", {}, "model.13.4.bias"),
        ("MobileNetV2", {"width": 0.25}, "classifier.0.weight"),
        ("ShuffleV1", {}, "layer3.3.conv3.weight"),
        ("wrn_40_2", {}, "block3.layer.0.convShortcut.weight"),
        ("vgg19", {}, "block4.9.weight"),
        ("vgg11_bn", {}, "features.25.weight"),
        ("mobilenet_v2", {}, "features.18.1.running_var"),
        ("resnet10t", {}, "layer4.0.downsample.1.weight"),
    ],
)
def test_names_and_options_survive_the_round_trip(name, options, has):
    tensors = models.to_torch(name, _zeros(name, options))
    assert has in tensors
    assert models.torch_options(name, tensors) == options
    back = models.to_torch(name, models.load_torch(name, tensors))
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in tensors.items()}


@pytest.mark.parametrize(
    ("name", "has"),
    [
        ("vit_b_32", "encoder.layers.encoder_layer_11.self_attention.in_proj_bias"),
        ("deit_tiny_distilled_patch16_224", "blocks.11.attn.qkv.weight"),
    ],
)
def test_vision_transformers_have_the_names_of_their_libraries(name, has):
    """Of the shapes alone: broadcast zeros have no memory."""
    model = models.build(name, num_classes=7, image_size=96)
    batch = {"image": jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.random(x.shape[-1:], np.float32) + np.zeros(x.shape, np.float32), shapes
    )
    tensors = models.to_torch(name, variables)
    assert has in tensors
    assert models.torch_options(name, tensors) == {"image_size": 96}
    width = tensors["norm.weight" if "deit" in name else "encoder.ln.weight"].shape[0]
    fused = tensors[has.replace("bias", "weight")]
    assert fused.shape == (3 * width, width)
    layer = variables.params["layer11"]["attention"]
    np.testing.assert_array_equal(fused[width : 2 * width], layer["key"]["kernel"].T)
    jax.tree.map(np.testing.assert_array_equal, models.load_torch(name, tensors), variables)
    old = {key.replace("mlp.0", "mlp.linear_1"): x for key, x in tensors.items()}
    del old[has]
    with pytest.raises(UserError, match=r"missing: .*\[query\]"):
        models.load_torch(name, old)


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
    actual = jax.jit(lambda v: model.apply(v, batch, train=False)[0].logits)(variables)
    reference = np.load(DATA / "teachers/reference_logits.npz")
    expected = reference[f"{name}_cifar10_jpegft__x_test"][:32]
    # both in float32, with another order of summation
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_wrappers_and_counters_in_a_checkpoint_are_ignored():
    tensors = _weights(SHAPES["wrn_16_2"])
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    wrapped["module.bn1.num_batches_tracked"] = np.array(7)
    a, b = (models.load_torch("wrn_16_2", t) for t in (tensors, wrapped))
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_other_names_of_the_last_layer_and_of_projections_are_read():
    tensors = _weights(SHAPES["resnet8x4"])
    renamed = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): tensor
        for name, tensor in tensors.items()
    }
    a, b = (models.load_torch("resnet8x4", t) for t in (tensors, renamed))
    assert all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_one_line_lists_all_errors_of_a_checkpoint():
    tensors = _weights(SHAPES["resnet20"])
    tensors["head.bias"] = tensors.pop("bn1.bias")
    tensors["conv1.weight"] = tensors["conv1.weight"][:8]
    with pytest.raises(UserError) as caught:
        models.load_torch("resnet20", tensors)
    assert str(caught.value) == (
        'the tensors are not those of "resnet20"; missing: bn1.bias; unexpected: head.bias; '
        "of another shape: conv1.weight (8, 3, 3, 3) instead of (16, 3, 3, 3)"
    )
    with pytest.raises(UserError, match=r"missing: layer1.* and 18 more; unexpected: block1"):
        models.load_torch("resnet8", _weights(SHAPES["wrn_16_2"]))
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
    # nested like an adapter, and a transposed view, whose buffer has another order
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


def test_restore_lists_all_errors():
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
    with pytest.raises(UserError, match=f"{path}: not a complete safetensors file"):
        models.from_safetensors(path)
    with pytest.raises(UserError, match="cannot be written"):
        models.to_safetensors(variables, tmp_path / "missing" / "model.safetensors")


def test_a_slash_in_a_name_is_an_error():
    with pytest.raises(UserError, match='holds a "/"'):
        models.flatten(Variables({"a/b": np.zeros(1)}, {}))
