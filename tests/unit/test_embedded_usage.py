"""What programs of a job tell of others' use, or put in its place."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from executors.agent.embedded.processes import take_usage


def job(path: Path) -> Any:
    return SimpleNamespace(id="e1", usage_path=str(path), cpu=1.0, max_rss=5)


def test_what_was_told_is_added_and_the_file_goes(tmp_path: Path) -> None:
    path = tmp_path / "usage"
    path.write_text("1 0.5 2 x\n2 0.25 1 x\n")
    one = job(path)
    take_usage(one)
    assert (one.cpu, one.max_rss, path.exists()) == (1.75, 2048, False)


@pytest.mark.parametrize("text", ["a b c d\n", "1 0.5 x 2\n", "1 2\n", "\0\n", "1 0.5 2 x"])
def test_lines_that_say_nothing_are_none_of_the_jobs_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "usage"
    path.write_text(f"{text}\n1 0.5 2 x\n")
    one = job(path)
    take_usage(one)
    assert one.cpu >= 1.5 and one.max_rss == 2048


@pytest.mark.parametrize("kind", ["nothing", "directory", "pipe", "link to nowhere"])
def test_what_is_no_file_is_none_of_the_jobs_end(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "usage"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to nowhere":
        path.symlink_to(tmp_path / "nowhere")
    one = job(path)
    take_usage(one)
    assert (one.cpu, one.max_rss) == (1.0, 5)
