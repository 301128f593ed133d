"""Untrusted files that are truncated, damaged, huge by their header or contain code.

Each raises one line, and no code in it is run. `tests/models/io/test_torch_file.py` tests PyTorch's
files. The fuzzing is bounded and seeded.
"""

import ast
import gzip
import io
import json
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdjax.errors import UserError
from kdjax.experiment.run import workdir
from kdjax.models.io import export as model_export
from kdjax.models.io.weight_files import read_weights
from kdjax.report import metrics_log
from tests.data import fakes

PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "kdjax"
GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RUNS_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_no_module_imports_libraries_that_run_code_from_files():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            assert not RUNS_CODE & {name.split(".")[0] for name in names}, path


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch):
    """Reading must not start to unpickle."""

    def refuse(*_, **__):
        raise AssertionError("something unpickles")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


def one_line(call, path):
    """Check that the file is read, or gives one line that names it."""
    try:
        return call(path)
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    return None


def write(path, content):
    path.write_bytes(content)
    return path


def npy(shape, numbers=b"\0" * 16, kind="<f4"):
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + numbers


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def tensors(header, numbers=b"\0" * 16):
    tensor_header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(tensor_header)) + tensor_header + numbers


def tensor_header(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


HUGE = 10**13
SAFETENSORS = {
    "empty": b"",
    "header cut": tensors(tensor_header())[:20],
    "numbers cut": tensors(tensor_header())[:-4],
    "header of an exabyte": struct.pack("<Q", 2**60) + b"{}",
    "array of an exabyte": tensors(tensor_header(shape=(2**58,), offsets=(0, 2**60))),
    "shape beyond its numbers": tensors(tensor_header(shape=(5,))),
    "shape that overflows": tensors(tensor_header(shape=(2**62, 2**62))),
    "overlap": tensors({**tensor_header(), "b": tensor_header()["a"]}),
    "negative offsets": tensors(tensor_header(offsets=(-16, 0))),
    "unknown type": tensors(tensor_header(dtype="PICKLE")),
    "no table": tensors(b"[]"),
    "nested without end": tensors(b"[" * 100_000),
    "a pickle": pickle.dumps({"a": 1}),
}


SAFETENSORS = {
    n: (content, "not a complete safetensors file") for n, content in SAFETENSORS.items()
}
SAFETENSORS["type without numpy"] = (
    tensors(tensor_header(dtype="F8_E5M2", shape=(16,))),
    "holds numbers of a type that is not read",
)


@pytest.mark.parametrize(("content", "message"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_safetensors(content, message, tmp_path):
    path = write(tmp_path / "a.safetensors", content)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


NPZ = {
    "array of many terabytes": {"a": npy((HUGE,))},
    "shape that overflows": {"a": npy((2**62, 2**62))},
    "negative shape": {"a": npy((-1,))},
    "numbers cut": {"a": npy((5,))},
    "objects": {"a": npy((1,), pickle.dumps(np.array([{}])), "|O")},
    "code as a type": {"a": npy((1,), kind="__import__('os').system('true')")},
    "code as a shape": {"a": npy((1,)).replace(b"(1,)", b"f()", 1)},
    "no npy": {"a": b"cos\nsystem\n(S'true'\ntR."},
    "long header": {"a": npy((1,) * 9000)},
}


@pytest.mark.parametrize("members", NPZ.values(), ids=NPZ)
def test_npz(members, tmp_path):
    path = npz(tmp_path / "a.npz", **members)
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    images = npz(tmp_path / "b.npz", x_train=members["a"], y_train=npy((1,)))
    with pytest.raises(UserError) as caught:
        fakes.load("npz", path=str(images), batch_size=4)
    assert "\n" not in str(caught.value)


def test_an_idx_that_decompresses_without_end_is_not_decompressed(tmp_path):
    fakes.write_idx(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    raw = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(raw + b"\0" * 2**26))  # 64 MiB of zeros in 64 KiB
    with pytest.raises(UserError, match=r"its header declares \(40, 6, 5\)"):
        fakes.load("idx", path=str(tmp_path), batch_size=4)


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: workdir.read_json(write(folder / "done.json", DEEP.encode())),
        lambda folder: write(folder / "config.json", DEEP.encode()) and workdir.read_config(folder),
        lambda folder: (
            write(folder / "config.json", DEEP.encode()) and model_export.describe(folder)
        ),
        lambda folder: metrics_log.read(write(folder / "metrics.jsonl", DEEP.encode() + b"\n")),
    ],
    ids=["json", "config", "export", "metrics"],
)
def test_deeply_nested_json(read, tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def originals():
    arrays = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(3, np.int32)}
    plain, packed = io.BytesIO(), io.BytesIO()
    np.savez(plain, **arrays)
    np.savez_compressed(packed, **arrays)
    images = io.BytesIO()
    np.savez(images, **fakes.arrays(n_train=8, n_test=4, shape=(3, 3, 1)))
    return {
        "safetensors": safetensors.numpy.save(arrays),
        "npz": plain.getvalue(),
        "packed.npz": packed.getvalue(),
        "images.npz": images.getvalue(),
        "zip.pth": (GOLDEN / "checkpoint_zip.pth").read_bytes(),
        "legacy.pth": (GOLDEN / "checkpoint_legacy.pth").read_bytes(),
    }


ORIGINALS = originals()


@st.composite
def damaged(draw, content):
    """Return a file with a few bytes replaced, removed, inserted or truncated."""
    damaged_content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        # headers are at both ends of a zip, and at the start of other files
        near = draw(
            st.sampled_from([0, max(0, len(damaged_content) - 600), len(damaged_content) // 2])
        )
        place = min(len(damaged_content), near + draw(st.integers(0, 300)))
        what = draw(st.sampled_from(["byte", "bytes", "out", "in", "cut"]))
        if what == "byte" and place < len(damaged_content):
            damaged_content[place] = draw(st.integers(0, 255))
        elif what == "bytes":
            damaged_content[place : place + 8] = draw(st.binary(min_size=8, max_size=8))
        elif what == "out":
            del damaged_content[place : place + draw(st.integers(1, 40))]
        elif what == "in":
            damaged_content[place:place] = draw(st.binary(max_size=20))
        elif what == "cut":
            del damaged_content[place:]
    return bytes(damaged_content)


@pytest.mark.parametrize("kind", ORIGINALS)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(value=st.data())
def test_fuzz(kind, value, tmp_path_factory):
    content = value.draw(damaged(ORIGINALS[kind]))
    path = write(tmp_path_factory.getbasetemp() / f"fuzzed_{kind.replace('.', '_', 1)}", content)
    path = path.rename(path.with_suffix(f".{kind.split('.')[-1]}"))
    arrays = one_line(read_weights, path)
    if arrays is not None:
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
    if kind == "images.npz":
        one_line(lambda p: fakes.load("npz", path=str(p), batch_size=4), path)
