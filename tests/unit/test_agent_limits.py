"""What an agent does where a disk, the table of open files or a line is full."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from executors.agent import wire
from executors.agent.protocol.acklog import AckLog
from executors.agent.protocol.connection import Connection
from executors.agent.protocol.jobs import Job, JobTable
from tests.support.hosts import FakeHost


class Lines(Connection):
    """Keeps what it would send."""

    def __init__(self) -> None:
        super().__init__(FakeHost())
        self.lines: list[bytes] = []

    def _write(self, line: bytes) -> None:
        self.lines.append(line)


def table_of(count: int, size: int) -> JobTable:
    table = JobTable("epoch")
    for index in range(count):
        table.add(Job(f"f{index}", name="n" * size))
    return table


@pytest.mark.parametrize(("count", "size"), [(1001, 20_000), (999, 40_000), (3, 10), (2500, 10), (40, wire.MAX_NAME)])
def test_a_list_goes_in_lines_of_a_bounded_size(count: int, size: int) -> None:
    client = Lines()
    rest = client.send_parts({"id": 7}, table_of(count, size).select(None, None))
    parts = [json.loads(line) for line in client.lines]
    assert all(len(line) <= wire.BATCH_BYTES for line in client.lines)
    assert len(wire.encode({"re": 7, "ok": {"jobs": rest}})) <= wire.BATCH_BYTES + 100
    found = [job["id"] for part in parts for job in part["part"]] + [job["id"] for job in rest]
    assert found == [f"f{index}" for index in range(count)]


def test_a_note_of_any_length_makes_events_that_fit() -> None:
    table = table_of(1, 1)
    table.apply("f0", "exception", 1.0, {"type": "cancel", "severity": 0, "note": "x" * 20_000_000})
    table.apply("f0", "clean", 2.0, {})
    for event in table.after(0, 10):
        assert len(wire.encode({"ev": [event]})) < wire.BATCH_BYTES


def test_acknowledgements_wait_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "acknowledged"
    log = AckLog(str(path))
    log.add(["f1"])
    write = os.write
    room: list[Any] = [2]

    def little(fd: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        size = write(fd, data[: room[0]])
        room[0] -= size
        return size

    monkeypatch.setattr(os, "write", little)
    log.add(["f22"])
    log.add(["f3"])
    assert path.read_text() == "f1\nf2"
    monkeypatch.undo()
    log.add(["f4"])
    assert path.read_text().split() == ["f1", "f22", "f3", "f4"] == AckLog(str(path)).read()
    log.close()


def test_acknowledgements_that_cannot_be_written_at_all_are_no_error(tmp_path: Path) -> None:
    (tmp_path / "acknowledged").symlink_to("/dev/full")
    log = AckLog(str(tmp_path / "acknowledged"))
    log.add(["f1"])
    log.close()
