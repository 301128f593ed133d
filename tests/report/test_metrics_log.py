import errno
import json
import math
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from kdjax.errors import RunError, UserError
from kdjax.report import metrics_log


def test_lines_contain_the_written_metrics(tmp_path):
    writer = metrics_log.MetricsLog(tmp_path, tensorboard=False)
    writer.write(3, "train", {"student/loss": np.float32(0.5)})
    writer.write(
        4, "validation", {"student/accuracy": 1, "student/nll": math.nan, "student/ece": math.inf},
        variant="bdkd", member=2,
        swept={"seed": np.int32(7), "roles.*.optimizer.learning_rate": 0.1},
    )  # fmt: skip
    writer.close()
    assert metrics_log.read(tmp_path / "metrics.jsonl") == [
        {"step": 3, "split": "train", "student/loss": 0.5},
        {
            "step": 4, "split": "validation", "variant": "bdkd", "member": 2, "seed": 7,
            "roles.*.optimizer.learning_rate": 0.1,
            "student/accuracy": 1.0, "student/nll": None, "student/ece": None,
        },
    ]  # fmt: skip
    assert not (tmp_path / "events").exists()


def test_truncate_then_append_equals_an_uninterrupted_log(tmp_path):
    def steps(writer, first, last):
        for step in range(first, last):
            writer.write(step, "train", {"student/loss": 1 / (step + 1)}, member=step % 2)

    uninterrupted = metrics_log.MetricsLog(tmp_path / "whole", tensorboard=False)
    steps(uninterrupted, 0, 9)
    uninterrupted.close()
    killed = metrics_log.MetricsLog(tmp_path / "killed", tensorboard=False)
    steps(killed, 0, 5)
    offset = killed.offset()
    steps(killed, 5, 8)
    killed.close()
    with (tmp_path / "killed/metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 8, "spl')
    assert offset < (tmp_path / "killed/metrics.jsonl").stat().st_size
    resumed = metrics_log.MetricsLog(tmp_path / "killed", tensorboard=False)
    resumed.truncate(offset)
    steps(resumed, 5, 9)
    resumed.close()
    paths = [tmp_path / name / "metrics.jsonl" for name in ("whole", "killed")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("text", ["", '{"step": 1, "split": "train"}\n'])
@pytest.mark.parametrize("rest", ['{"step": 2, "split": "tr', '{"step": 2, "x": "' + "x" * 70000])
def test_half_written_line_is_dropped(tmp_path, text, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text + rest)
    assert len(metrics_log.read(path)) == text.count("\n")
    writer = metrics_log.MetricsLog(tmp_path, tensorboard=False)
    assert writer.offset() == len(text)
    writer.write(2, "train", {})
    writer.close()
    assert metrics_log.read(path)[-1] == {"step": 2, "split": "train"}


def test_offset_inside_a_line_drops_that_line(tmp_path):
    writer = metrics_log.MetricsLog(tmp_path, tensorboard=False)
    writer.write(1, "train", {})
    first = writer.offset()
    writer.write(2, "train", {})
    writer.truncate(first + 5)
    assert writer.offset() == first


def test_errors_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read"):
        metrics_log.read(tmp_path / "none.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"step": 1, "split": "train"}\nnot json\n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2"):
        metrics_log.read(tmp_path / "bad.jsonl")
    writer = metrics_log.MetricsLog(tmp_path / "run", tensorboard=False)
    with pytest.raises(UserError, match=r"0 bytes, but the checkpoint was saved at 10"):
        writer.truncate(10)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*use a folder"):
        metrics_log.MetricsLog(tmp_path / "file")


def test_tensorboard_records_survive_a_resume(tmp_path):
    writer = metrics_log.MetricsLog(tmp_path)
    for step in range(3):
        writer.write(step, "train", {"student/loss": 0.5 * step}, variant="../b", member=1)
    offset = writer.offset()
    writer.write(3, "train", {"student/loss": 9.0}, variant="../b", member=1)
    writer.close()
    again = metrics_log.MetricsLog(tmp_path)
    again.truncate(offset)
    again.write(3, "train", {"student/loss": 1.5}, variant="../b", member=1)
    again.close()
    folders = {path.parent for path in tmp_path.rglob("*tfevents*")}
    assert folders == {tmp_path / "events/_._b/1"}
    first, second = (_events(path) for path in sorted(next(iter(folders)).iterdir()))
    scalars = [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in first[1:]]
    assert scalars[:3] == [(s, "train/student/loss", 0.5 * s) for s in range(3)]
    assert first[0].file_version == "brain.Event:2"
    # At a START record TensorBoard discards this step and later ones.
    assert (second[1].step, second[1].session_log.status) == (3, event_pb2.SessionLog.START)
    assert second[2].summary.value[0].simple_value == 1.5


def _events(path):
    data, records = path.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == _masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == _masked_crc32c(body)
        records.append(event_pb2.Event.FromString(body))
        data = data[16 + length :]
    return records


def _masked_crc32c(data):
    # Bit by bit, from the polynomial of RFC 3720: independent of the writer's table.
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_the_log_of_a_sweep_has_one_json_object_per_line(tmp_path):
    writer = metrics_log.MetricsLog(tmp_path)
    for member in range(130):  # more folders than can be open at once
        writer.write(1, "train", {"student/loss": 1.0}, variant="a", member=member)
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["member"] for line in lines] == list(range(130))
    assert len(list((tmp_path / "events/a").iterdir())) == 130


def test_a_disk_that_fills_up_within_a_line(tmp_path):
    """The kernel writes what fits and raises an error only at the next write."""

    class Full:
        def __init__(self, file):
            self.file, self.left = file, 60

        def write(self, content):
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = self.file.write(bytes(content[: self.left]))
            self.left -= written
            return written

        def __getattr__(self, name):
            return getattr(self.file, name)

    writer = metrics_log.MetricsLog(tmp_path, tensorboard=False)
    writer._file = Full(writer._file)
    writer.write(1, "train", {"student/loss": 0.5})
    with pytest.raises(
        RunError, match=r"metrics cannot be written \(No space left on device\); free"
    ):
        writer.write(2, "train", {"student/loss": 0.5})
    writer.close()
    assert not (tmp_path / "metrics.jsonl").read_bytes().endswith(b"\n")
    metrics_log.MetricsLog(tmp_path, tensorboard=False).close()
    assert [line["step"] for line in metrics_log.read(tmp_path / "metrics.jsonl")] == [1]
