"""Files on a disk and objects of a bucket behave alike; local copies follow the bucket."""

import importlib.util
import pathlib

import pytest

from kdjax.errors import UserError
from kdjax.report import files, staging


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    if request.param == "disk":
        return files.as_path(str(tmp_path / "run"))
    service = request.getfixturevalue("service")
    return files.as_path(f"{service.create('files-' + request.node.name[:8])}/run")


def test_files_are_written_read_listed_and_removed(folder):
    path = folder / "deep" / "a.json"
    assert not files.exists(path)
    with pytest.raises(FileNotFoundError) as missing:
        files.read_text(path)
    assert str(path) in str(missing.value)
    files.write_text(path, "eins, zw\u00f6lf")
    files.write_text(path, "\u00e9", atomic=False)
    assert files.exists(path)
    assert files.exists(folder / "deep")
    assert files.read_text(path) == "\u00e9"
    assert files.size_of(path) == 2
    assert files.matching(folder, "*/*.json") == [path]
    assert files.name_of(folder) == "run"
    files.remove(path)
    assert not files.exists(path)
    files.make_folder(folder)
    files.write_bytes(folder / "b", b"\0")
    assert files.read_bytes(folder / "b") == b"\0"


def test_staged_files_are_uploaded_and_downloaded(folder):
    staged = staging.Staged(folder, ("log", "events"))
    staged.folder.mkdir(parents=True, exist_ok=True)
    with (staged.folder / "log").open("ab", buffering=0) as log:
        log.write(b"one\n")
        (staged.folder / "events" / "a").mkdir(parents=True)
        (staged.folder / "events" / "a" / "1").write_bytes(b"1")
        staged.upload()
        log.write(b"two\n")
        staged.upload()
    staged.close()
    assert files.read_text(folder / "log") == "one\ntwo\n"
    again = staging.Staged(folder, ("log", "events"))
    assert (again.folder / "log").read_bytes() == b"one\ntwo\n"
    assert (again.folder / "events" / "a" / "1").read_bytes() == b"1"
    again.close()


def test_only_changed_files_are_uploaded(service):
    workdir = files.as_path(service.create("changed") + "/run")
    staged = staging.Staged(workdir, ("log",))
    (staged.folder / "log").write_text("x")
    staged.upload()
    before = service.requests
    staged.upload()
    assert service.requests == before
    staged.close()
    assert not staged.folder.exists()


def test_a_local_folder_is_uploaded_with_its_config_last(folder, service, monkeypatch):
    with staging.local_folder(folder) as local:
        local.mkdir(parents=True, exist_ok=True)
        for name in ("config.json", "model.safetensors"):
            (local / name).write_text(name)
    assert files.read_text(folder / "model.safetensors") == "model.safetensors"
    if files.is_remote(folder):
        about = service.storage.objects[str(folder).split("/")[2]]
        made = {name: int(item["generation"]) for name, item in about.items()}
        assert max(made, key=made.__getitem__) == "run/config.json"


def test_local_copies_follow_the_bucket(service, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    address = service.create("copies")
    service.write("copies", "set/a/1.txt", b"one")
    service.write("copies", "set/b/2.txt", b"two")
    copy = pathlib.Path(staging.local_copy(f"{address}/set/"))
    assert copy.name == "set"
    assert (copy / "a" / "1.txt").read_bytes() == b"one"
    assert (copy / "b" / "2.txt").read_bytes() == b"two"
    assert staging.local_copy(f"{address}/set") == str(copy)
    only = pathlib.Path(staging.local_copy(f"{address}/set", "b"))
    assert [p.name for p in only.iterdir()] == ["b"]
    file = pathlib.Path(staging.local_copy(f"{address}/set/a/1.txt"))
    assert (file.name, file.read_bytes()) == ("1.txt", b"one")
    service.write("copies", "set/a/1.txt", b"changed")
    changed = pathlib.Path(staging.local_copy(f"{address}/set"))
    assert (changed / "a" / "1.txt").read_bytes() == b"changed"
    assert staging.local_copy("~/set") == "~/set"
    with pytest.raises(UserError, match="no such object"):
        staging.local_copy(f"{address}/none")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2}))
    with pytest.raises(UserError, match="let XDG_CACHE_HOME name a larger disk"):
        staging.local_copy(f"{address}/set/b")


def test_addresses_that_cannot_be_read_are_refused(service, monkeypatch):
    files.check_access("FILE.py:ARG")
    files.check_access(None)
    files.check_access(files.as_path(service.create("checked") + "/any"))
    with pytest.raises(UserError, match="gs://absent/x: there is no bucket absent"):
        files.check_access(files.as_path("gs://absent/x"))
    with service.failing(lambda *_: 401), pytest.raises(UserError, match="cannot be read"):
        files.check_access(files.as_path("gs://checked/x"))
    with pytest.raises(UserError, match="use a folder, or a bucket"):
        files.check_access(files.as_path("s3://bucket/x"))
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gcsfs" else find(n))
    with pytest.raises(UserError, match="pip install"):
        files.check_access(files.as_path("gs://checked/x"))
