"""What a later agent is told of the tasks of its predecessor: files only."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from executors.agent.engine import SharedEnvironment, Submission
from executors.agent.pilot import ledger as ledger_module
from executors.agent.pilot.ledger import Ledger
from executors.agent.pilot.shape import Shape
from executors.agent.pilot.task import Task


def task(name: str, secret: dict[str, str] | None = None) -> Task:
    one = Task(name, f"key of {name}", "digest", "a name")
    one.submission = Submission(
        {"tasks": [name]}, 7, one.key, one.digest, one.name, secret, environment=SharedEnvironment({"A": "\udce9"})
    )
    one.environment = "ref"
    one.shape = Shape(4, 2)
    return one


def written(directory: Path, *tasks: Task) -> Ledger:
    ledger = Ledger(str(directory))
    ledger.read()
    if tasks:
        ledger.take(list(tasks))
    return ledger


def test_a_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    ledger = written(
        tmp_path, task("p1.1", {"TOKEN": "s3cret"}), task("p1.2"), task("p1.3"), task("p1.4"), task("p1.5")
    )
    ledger.sent(3, "mark", ["p1.2", "p1.3", "p1.4"])
    ledger.back(["p1.3"])
    ledger.ended(["p1.4"])
    ledger.exception("cancel", "a note", "p1.5")
    ledger.flush()
    waits, sent, back, ended, cancelled = Ledger(str(tmp_path)).read()
    assert (waits.id, waits.key, waits.digest, waits.name, waits.rank) == (
        "p1.1",
        "key of p1.1",
        "digest",
        "a name",
        -1,
    )
    assert waits.shape == Shape(4, 2)
    assert waits.submission is not None and waits.submission.environment is not None
    assert (waits.submission.jobspec, waits.submission.urgency) == ({"tasks": ["p1.1"]}, 7)
    assert waits.submission.secret_env == {"TOKEN": "s3cret"}
    assert waits.submission.environment.values == {"A": "\udce9"}
    assert [(one.rank, one.mark, one.ended) for one in (sent, back, ended)] == [
        (3, "mark", False), (-1, "", False), (3, "mark", True),
    ]  # fmt: skip
    assert (cancelled.ended, cancelled.exception, ended.exception) == (True, ("cancel", "a note"), None)


def test_a_secret_lies_in_a_private_file_of_its_own_and_nowhere_when_it_is_removed(tmp_path: Path) -> None:
    ledger = written(tmp_path, task("p1.1", {"TOKEN": "s3cret"}))
    holding = [path for path in tmp_path.iterdir() if "s3cret" in path.read_text()]
    assert [path.name for path in holding] == ["pilot-secret.p1.1"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    ledger.remove_secret("p1.1")
    ledger.remove_secret("p1.1")
    assert not any("s3cret" in path.read_text() for path in tmp_path.iterdir())
    [read] = Ledger(str(tmp_path)).read()
    assert read.submission is not None and read.submission.secret_env is None


def test_a_line_that_was_cut_by_a_kill_says_nothing(tmp_path: Path) -> None:
    written(tmp_path, task("p1.1"), task("p1.2")).close()
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    assert [one.id for one in Ledger(str(tmp_path)).read()] == ["p1.1"]


def test_what_is_forgotten_leaves_the_disk_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "SEGMENT", 100)
    tasks = [task(f"p1.{number}") for number in range(1, 6)]
    ledger = Ledger(str(tmp_path))
    for one in tasks:
        ledger.take([one])
    ledger.sent(0, "mark", ["p1.1"])
    ledger.flush()
    assert len(list(tmp_path.iterdir())) == 5
    for one in tasks[1:4]:
        ledger.forget(one)
    # The first is not forgotten, and a later file may say that it was sent.
    assert len(list(tmp_path.iterdir())) == 5
    [first, *_] = Ledger(str(tmp_path)).read()
    assert (first.id, first.rank) == ("p1.1", 0)
    ledger.forget(tasks[0])
    assert len(list(tmp_path.iterdir())) == 1


def test_an_agent_goes_on_where_its_predecessor_ended(tmp_path: Path) -> None:
    written(tmp_path, task("p1.1")).close()
    later = Ledger(str(tmp_path))
    [first] = later.read()
    later.take([task("p2.2")])
    assert [one.id for one in Ledger(str(tmp_path)).read()] == ["p1.1", "p2.2"]
    later.forget(first)
    assert [one.id for one in Ledger(str(tmp_path)).read()] == ["p2.2"]


def test_what_a_full_disk_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = written(tmp_path, task("p1.1"))

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            ledger.take([task("p1.2", {"TOKEN": "s3cret"})])
        ledger.sent(0, "mark", ["p1.1"])
        with pytest.raises(OSError, match="No space"):
            ledger.flush()
    ledger.take([task("p1.3")])
    assert [(one.id, one.rank) for one in Ledger(str(tmp_path)).read()] == [("p1.1", 0), ("p1.3", -1)]
    assert not [*tmp_path.glob("pilot-secret*")]
