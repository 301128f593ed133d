"""PyTorch files: two real ones, and malicious, damaged or other files written by hand.

checkpoint_{zip,legacy}.pth were written by torch.save of PyTorch 2.13 from one dict: "epoch",
"arch", "best_acc", "state_dict" (the tensors below), "optimizer" (of SGD) and "shape".
"""

import io
import json
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from kdjax.errors import UserError
from kdjax.models.io.weight_files import read_weights

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
WHOLE = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
TENSORS = {
    "whole": WHOLE,
    "turned": WHOLE.transpose(2, 0, 1),
    "slice": WHOLE[1, 1:, ::2],
    "double": np.arange(3) - 0.5,
    "half": np.float16([1.5, -2, 65504]),
    "brain": np.float32([1.5, -2, 3.0040553e38]),  # 3e38 to 8 bits
    "counter": np.int64(7),
    "bytes": np.uint8([0, 255]),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.ones((2, 2), np.float32),
}


def _name(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def _text(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _ints(*numbers):
    return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in numbers) + b"t"


def _tensor(shape=(2,), strides=(1,), size=2, offset=0, kind="FloatStorage", tag="storage"):
    """Return the instructions of one tensor as written by torch.save, with storage 0."""
    parts = [_name("torch._utils", "_rebuild_tensor_v2"), b"(("]
    parts += [_text(tag), _name("torch", kind), _text("0"), _text("cpu")]
    parts += [b"J" + struct.pack("<i", size), b"tQ", b"J" + struct.pack("<i", offset)]
    parts += [_ints(*shape), _ints(*strides), b"\x89", _name("collections", "OrderedDict")]
    return b"".join([*parts, b")RtR"])


def _dict(**values):
    return b"}(" + b"".join(_text(key) + value for key, value in values.items()) + b"u"


def _file(path, program, numbers=b"\0" * 8, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("archive/data/0", numbers)
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_real_checkpoints_give_their_tensors(kind):
    actual = read_weights(GOLDEN / f"checkpoint_{kind}.pth")
    assert list(actual) == [f"module.{name}" for name in TENSORS]
    for name, tensor in TENSORS.items():
        assert actual[f"module.{name}"].dtype == tensor.dtype
        np.testing.assert_array_equal(actual[f"module.{name}"], tensor)
        assert not actual[f"module.{name}"].flags.writeable or not tensor.size


def test_handwritten_files_are_read(tmp_path):
    numbers = np.float32([1, 2, 3, 4]).tobytes()
    program = _dict(a=_tensor((2, 1), (1, 7), 4, 1), b=_tensor((), (), 4, 3))
    actual = read_weights(_file(tmp_path / "a.pt", program, numbers, byteorder="little"))
    np.testing.assert_array_equal(actual["a"], [[2], [3]])
    assert actual["b"] == 4


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_usual_nestings_are_read(tmp_path, key):
    inner = _dict(weight=_tensor())
    program = _dict(**{"epoch": b"K\x03", "ema": inner, key: inner, "optimizer": _dict(x=b"N")})
    assert list(read_weights(_file(tmp_path / "a.th", program))) == ["weight"]


class CodeRunner:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", range(6))
def test_calls_in_a_pickle_are_named_and_not_executed(tmp_path, protocol):
    mark = tmp_path / "called"
    content = pickle.dumps({"a": CodeRunner(open, str(mark), "w")}, protocol)
    for container in ("zip", "legacy"):
        path = tmp_path / f"{container}.pth"
        if container == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", content)
        else:
            magic, rest = pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2)
            path.write_bytes(magic + rest + pickle.dumps({"little_endian": True}, 2) + content)
        with pytest.raises(UserError, match=r"it needs (io|_io)\.open, which is not a tensor"):
            read_weights(path)
    assert not mark.exists()


REFUSED = {
    "a module": (_name("torch.nn.modules.linear", "Linear") + b")\x81", "torch.nn.modules.linear"),
    "a dotted name": (_name("torch._utils", "_rebuild_tensor_v2.__globals__"), "__globals__"),
    "a class of the opcode i": (b"(" + b"ios\nsystem\n", "INST .os system."),
    "a persistent id": (_dict(a=_tensor(tag="module")), "it refers to 'module'"),
    "another storage": (_dict(a=_tensor(kind="ComplexFloatStorage")), "torch.ComplexFloatStorage"),
    "state of a tensor": (_dict(a=_tensor() + b"}b"), "it sets the state of an object"),
    "a name as a call": (b"}(X\x01\0\0\0aK\x01)Ru", "a call that makes no tensor"),
    "a tuple as a key": (b"})K\x01s", "a key of type tuple"),
    "a set": (b"\x8f", "EMPTY_SET"),
    "an unfinished stack": (b"s", "damaged"),
    "a missing memo": (b"h\x05", "damaged"),
    "an unknown instruction": (b"\xff", "damaged"),
    "a tensor beyond its storage": (_dict(a=_tensor((3,))), "larger than its storage"),
    "a far tensor": (_dict(a=_tensor((2,), (5,))), "larger than its storage"),
    "a repeated number": (_dict(a=_tensor((9,), (0,))), "larger than its storage"),
    "a negative shape": (_dict(a=_tensor((-1,))), "the shape of a tensor"),
    "unequal ranks": (_dict(a=_tensor((1, 1))), "damaged"),
    "a negative offset": (_dict(a=_tensor(offset=-1)), "the shape of a tensor"),
    "a huge empty tensor": (_dict(a=_tensor((0, 2**31 - 1, 2**31 - 1, 99), (1,) * 4)), "damaged"),
    "too few numbers": (_dict(a=_tensor((3,), (1,), 3)), "a: its numbers are cut short, 8 bytes"),
    "two sizes of a storage": (_dict(a=_tensor(), b=_tensor(size=3)), "storage 0 differs"),
    "one tensor": (_tensor(), "it holds no dict"),
    "no tensors": (_dict(epoch=b"K\x03"), "no state dict; its keys are: epoch"),
    "two networks": (
        _dict(first=_dict(a=_tensor()), second=_dict(a=_tensor())),
        "several state dicts; its keys are: first, second",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unknown_and_malicious_programs_are_one_line(tmp_path, what):
    program, message = REFUSED[what]
    path = _file(tmp_path / "a.pth", program)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_endless_and_oversized_programs_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr("kdjax.models.io.pickle_reader._MAX_INSTRUCTIONS", 100)
    with pytest.raises(UserError, match="more than 100 instructions"):
        read_weights(_file(tmp_path / "a.pth", b"}" * 200))
    monkeypatch.setattr("kdjax.models.io.torch_file._MAX_DESCRIPTION", 100)
    with pytest.raises(UserError, match="more than 100 bytes"):
        read_weights(_file(tmp_path / "a.pth", b"}" * 200))


def test_other_archives_are_one_line(tmp_path):
    path, program = tmp_path / "a.pth", _dict(a=_tensor())
    with pytest.raises(UserError, match="members are compressed"):
        read_weights(_file(path, program, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="big-endian"):
        read_weights(_file(path, program, byteorder="big"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(UserError, match=r"without a data\.pkl"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + program + b".")
    with pytest.raises(UserError, match="a/data/0 is missing"):
        read_weights(path)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_damaged_files_raise_only_user_errors(tmp_path_factory, kind, data):
    content = bytearray((GOLDEN / f"checkpoint_{kind}.pth").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged_{kind}.pth"
    path.write_bytes(content)
    try:
        actual = read_weights(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(isinstance(tensor, np.ndarray) for tensor in actual.values())


def test_other_kinds_of_files(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.ones(2))
    np.testing.assert_array_equal(read_weights(tmp_path / "a.npz")["one"], [1, 1])
    np.savez(tmp_path / "b.npz", one=np.array([{}], dtype=object))
    np.save(tmp_path / "c.npy", np.ones(2))
    (tmp_path / "c.npy").rename(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-9])
    (tmp_path / "e.pth").write_bytes(b"\0\0\0\0")
    (tmp_path / "f.pth").write_bytes(b"")
    for name, message in {
        "b.npz": "not a whole .npz file of plain arrays",
        "c.npz": "one array without a name",
        "d.npz": "not a whole .npz",
        "e.pth": "neither a zip archive nor a pickle",
        "f.pth": "neither a zip archive nor a pickle",
        "g.pth": "no such file",
        "g.npz": "no such file",
        "h.bin": "use a file of weights: .npz, .safetensors, .pth",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            read_weights(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_a_pickle_of_another_object_is_an_error(tmp_path):
    stream = io.BytesIO()
    pickle.dump([1, 2], stream, 2)
    (tmp_path / "a.pth").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="a pickle, but not of PyTorch"):
        read_weights(tmp_path / "a.pth")


def _object(module, name, state=b"N"):
    """An instance as pickle writes it, with a state that a class would receive."""
    return _name(module, name) + b")\x81" + state + b"b"


def test_objects_that_no_weight_needs_are_skipped_by_name(tmp_path):
    scalar = _name("numpy._core.multiarray", "scalar") + _name("numpy", "dtype")
    scalar += b"(" + _text("f8") + b"\x89\x88tR(K\x03" + _text("<") + b"NNNtbC\x08" + b"\0" * 8
    scalar += b"\x86R"
    attributes = _object("lightning", "AttributeDict", b"N") + b"(" + _text("lr") + b"K\x01u"
    program = _dict(
        args=_object("argparse", "Namespace", _dict(lr=b"K\x01")),
        best=scalar,
        hyper=attributes,
        callbacks=b"}" + _name("lightning", "Callback") + b"K\x01s",
        call=_name("os", "system") + b"(" + _text("touch x") + b"tR",
        state_dict=_dict(weight=_tensor()),
    )
    path = _file(tmp_path / "a.pth", program)
    says = "skipped argparse.Namespace, numpy._core.multiarray.scalar, numpy.dtype, lightning.Attr"
    with pytest.warns(UserWarning, match=says):
        assert list(read_weights(path)) == ["weight"]
    # an object among the weights is one that they need
    inner = _dict(weight=_tensor(), bias=_object("torch.nn.parameter", "Buffer"))
    path = _file(tmp_path / "b.pth", _dict(state_dict=inner, ema=_dict(weight=_tensor())))
    with pytest.raises(UserError, match=r"state_dict holds 'bias', which is not a tensor.*Buffer"):
        read_weights(path)


def test_one_state_dict_of_several_is_named_or_chosen(tmp_path):
    sizes = {"state_dict": 1, "state_dict_ema": 2}
    program = _dict(**{key: _dict(w=_tensor((n,))) for key, n in sizes.items()})
    path = _file(tmp_path / "a.pth", program)
    says = r"a.pth: read 'state_dict' of its state dicts \(state_dict, state_dict_ema\); choose"
    with pytest.warns(UserWarning, match=says):
        assert read_weights(path)["w"].shape == (1,)
    for key, size in sizes.items():
        assert {n: x.shape for n, x in read_weights(path, key).items()} == {"w": (size,)}
    program = _dict(**{key: _dict(w=_tensor()) for key in ("student", "teacher")})
    path = _file(tmp_path / "b.pth", program)
    with pytest.raises(UserError, match="are: student, teacher; choose by --key"):
        read_weights(path)
    assert list(read_weights(path, "teacher")) == ["w"]
    for key in ("model", "net"):  # either could be meant
        program = _dict(net=_dict(w=_tensor()), model=_dict(w=_tensor((1,))))
        with pytest.raises(UserError, match="are: net, model; choose"):
            read_weights(_file(path, program))
        assert list(read_weights(path, key)) == ["w"]


def test_a_key_is_also_a_prefix_of_names(tmp_path):
    np.savez(tmp_path / "a.npz", **{"teacher.fc.weight": np.ones(1), "student.fc.weight": [2.0]})
    assert read_weights(tmp_path / "a.npz", "student") == {"fc.weight": 2}
    path = _file(tmp_path / "a.pth", _dict(**{"net.w": _tensor(), "nets.w": _tensor()}))
    assert list(read_weights(path, "net")) == ["w"]
    with pytest.raises(UserError, match="no weights under the key 'ema'; its names start with net"):
        read_weights(path, "ema")


@pytest.mark.parametrize("name", ["a.pth.tar", "a.bin", "a", "a.ckpt", "a.model", "a.pth"])
def test_the_content_says_what_a_file_is(tmp_path, name):
    path, tensors = tmp_path / name, {"w": np.ones((1, 2), np.float32)}
    path.write_bytes((GOLDEN / "checkpoint_legacy.pth").read_bytes())
    assert "module.whole" in read_weights(path)
    assert list(read_weights(_file(path, _dict(w=_tensor())))) == ["w"]
    safetensors.numpy.save_file(tensors, path)
    np.testing.assert_array_equal(read_weights(path)["w"], tensors["w"])
    if name != "a.pth":
        with path.open("wb") as file:
            np.savez(file, **tensors)
        np.testing.assert_array_equal(read_weights(path)["w"], tensors["w"])
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(UserError, match="a pointer of Git LFS, not the weights"):
        read_weights(path)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"use a file of weights|not a PyTorch file"):
        read_weights(path)


def test_shards_are_read_by_their_index(tmp_path):
    parts = {"model-1.safetensors": {"a": np.ones(1)}, "model-2.safetensors": {"b": np.zeros(2)}}
    for name, tensors in parts.items():
        safetensors.numpy.save_file(tensors, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"

    def write(**where):
        index.write_text(json.dumps({"metadata": {}, "weight_map": where}))

    write(a="model-1.safetensors", b="model-2.safetensors")
    for path in (tmp_path, index):
        assert {n: len(x) for n, x in read_weights(path).items()} == {"a": 1, "b": 2}
    write(a="model-1.safetensors", c="model-1.safetensors")
    with pytest.raises(UserError, match=r"index\.json: its files lack c"):
        read_weights(tmp_path)
    for name, says in {
        "../a.safetensors": "is not a file of weights next to it",
        index.name: "is not a file of weights next to it",
        "model-3.safetensors": "no such file",
    }.items():
        write(a=name)
        with pytest.raises(UserError, match=says) as caught:
            read_weights(tmp_path)
        assert "\n" not in str(caught.value)
    for text in ("[]", "{", '{"weight_map": [1]}', "[" * 200_000):
        index.write_text(text)
        with pytest.raises(UserError, match="not an index of shards with a weight_map"):
            read_weights(index)
