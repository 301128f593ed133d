"""Import of PyTorch weights as a checkpoint, and export to PyTorch's names."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from kdjax import models
from kdjax.cli import main
from kdjax.errors import UserError
from kdjax.models.io import export as model_export
from kdjax.models.io.import_torch import ImageFormat, import_weights, write_torch

DATA = pathlib.Path(__file__).parents[3] / "../shared/data"
TEACHER = DATA / "teachers/resnet56_cifar10_jpegft.npz"


@pytest.fixture
def tensors():
    """Return a small trained network in PyTorch's format."""
    model = models.build("resnet8", num_classes=10, shortcut="pad")
    batch = {"image": jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    return models.to_torch("resnet8", variables)


def test_import_and_export_are_exact(tmp_path, tensors, capsys):
    weights, out = tmp_path / "w.npz", tmp_path / "teacher"
    np.savez(weights, **{f"module.{name}": tensor for name, tensor in tensors.items()})
    flags = [f"--weights={weights}", f"--out={out}", "--mean=.5,.5,.5", "--std=.2,.2,.2"]
    assert main(["import", "--model=resnet8", *flags]) == 0
    assert (
        "roles.<role>.model.name=resnet8, roles.<role>.model.shortcut=pad"
        in capsys.readouterr().err
    )
    metadata = json.loads((out / "config.json").read_text())
    assert metadata["model"] == {"name": "resnet8", "shortcut": "pad"}
    assert (metadata["num_classes"], metadata["shape"], metadata["scale"]) == (10, [32, 32, 3], 255)
    assert (metadata["mean"], metadata["std"]) == ([0.5] * 3, [0.2] * 3)
    back = safetensors.numpy.load_file(write_torch(out))
    assert set(back) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    # what was written reads as weights again
    with pytest.warns(UserWarning, match="import with --mean and --std"):
        again = import_weights(
            "resnet8", out / "torch.safetensors", tmp_path / "again", ImageFormat()
        )
    assert again.startswith("10 classes")
    assert json.loads((tmp_path / "again/config.json").read_text())["mean"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 7}, "has 10 classes, but num_classes is 7"),
        ({"shape": (32, 32)}, r"shape is \(32, 32\)"),
        ({"shape": (32, 32, 1)}, "takes images of 3 channels, but shape says 1"),
        ({"mean": (0.5,) * 3}, "both mean and std"),
        ({"mean": (0.5,), "std": (0.2,)}, "mean has 1 numbers for 3 channels"),
        ({"mean": (0.5,) * 3, "std": (0.2, 0, 0.2)}, "must be greater than 0"),
        ({"scale": 0}, "must be greater than 0"),
        ({"class_names": ("cat", "dog")}, "has 10 classes, but 2 names"),
    ],
)
def test_mismatched_numbers_are_errors(tmp_path, tensors, options, message):
    np.savez(tmp_path / "w.npz", **tensors)
    out, num_classes = tmp_path / "out", options.get("num_classes")
    images = ImageFormat(**{name: x for name, x in options.items() if name != "num_classes"})
    with pytest.raises(UserError, match=message):
        import_weights("resnet8", tmp_path / "w.npz", out, images, num_classes=num_classes)
    assert not out.exists()


def test_mismatched_tensors_are_listed(tmp_path, tensors):
    path = tmp_path / "w.npz"
    np.savez(path, **tensors)
    with pytest.raises(UserError, match=rf'{path}: the tensors are not those of "resnet14"; miss'):
        import_weights("resnet14", path, tmp_path / "out", ImageFormat())
    with pytest.raises(UserError, match=rf'{path}: model "mlp" has no PyTorch names'):
        import_weights("mlp", path, tmp_path / "out", ImageFormat())
    tensors["fc.bias"][3] = np.nan
    np.savez(path, **tensors)
    with pytest.raises(UserError, match=r"NaN or infinite numbers in fc\.bias"):
        import_weights("resnet8", path, tmp_path / "out", ImageFormat())


def test_command_line_errors_exit_with_2(tmp_path, tensors, capsys):
    np.savez(tmp_path / "w.npz", **tensors)
    flags = ["import", "--model=resnet8", f"--weights={tmp_path / 'w.npz'}"]
    assert main([*flags, f"--out={tmp_path / 'out'}", "--shape=32x32x3"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.warns(UserWarning, match="import with --mean and --std"):
        assert main([*flags, f"--out={tmp_path / 'out'}"]) == 0
    assert main([*flags, f"--out={tmp_path / 'out'}"]) == 2
    assert "already holds model.safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "module._orig_mod.", "lightning.net.model.module."],
)
def test_names_of_wrapped_networks_are_read(tensors, prefix):
    expected = models.load_torch("resnet8", tensors)
    wrapped = {prefix + name: tensor for name, tensor in tensors.items()}
    wrapped["n_averaged"] = np.int64(3)
    assert models.torch_options("resnet8", wrapped) == {"shortcut": "pad"}
    jax.tree.map(np.testing.assert_array_equal, models.load_torch("resnet8", wrapped), expected)
    # only a part of it was compiled or distributed
    inner = {n.replace("layer1.0.", "layer1._orig_mod.0.module."): x for n, x in wrapped.items()}
    jax.tree.map(np.testing.assert_array_equal, models.load_torch("resnet8", inner), expected)
    with pytest.raises(UserError, match=r"another tensor are both 'fc\.bias'"):
        models.load_torch("resnet8", {**tensors, "module.fc.bias": tensors["fc.bias"]})


def test_the_key_of_a_network_beside_others(tmp_path, tensors, capsys):
    both = {f"student.{name}": tensor for name, tensor in tensors.items()}
    both |= {f"teacher.{name}": tensor + 1 for name, tensor in tensors.items()}
    np.savez(tmp_path / "w.npz", **both)
    flags = ["import", "--model=resnet8", f"--weights={tmp_path / 'w.npz'}", "--std=.5,.5,.5"]
    flags += ["--mean=.5,.5,.5", f"--out={tmp_path / 'out'}", "--classes=a,b,c,d,e,f,g,h,i,j"]
    assert main(flags) == 2
    assert "--key" in capsys.readouterr().err
    assert main([*flags, "--key=teacher"]) == 0
    _, variables, about = model_export.restore(tmp_path / "out")
    np.testing.assert_array_equal(variables.params["fc"]["bias"], tensors["fc.bias"] + 1)
    assert about["class_names"] == list("abcdefghij")
    mode = (tmp_path / "new").touch() or (tmp_path / "new").stat().st_mode
    assert {file.stat().st_mode for file in (tmp_path / "out").iterdir()} == {mode}


def test_a_real_teacher_imports_and_keeps_its_logits(tmp_path):
    if not TEACHER.exists():
        pytest.skip(f"{TEACHER} is not here")
    images = ImageFormat(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    import_weights("resnet56", TEACHER, tmp_path / "teacher", images)
    model, variables, metadata = model_export.restore(tmp_path / "teacher")
    mean, std = np.array(metadata["mean"]), np.array(metadata["std"])
    arrays = np.load(DATA / "cifar10_jpeg_5k.npz")
    images, labels = arrays["x_test"][:200], arrays["y_test"][:200]
    batch = {"image": np.float32((images / metadata["scale"] - mean) / std)}
    actual = jax.jit(lambda v: model.apply(v, batch, train=False)[0].logits)(variables)
    reference = np.load(DATA / "teachers/reference_logits.npz")
    expected = reference["resnet56_cifar10_jpegft__x_test"][:200]
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert np.mean(np.argmax(actual, 1) == labels) == np.mean(np.argmax(expected, 1) == labels)
