"""Secrets in files that nobody has to remove."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from executors.memory_file import MemoryFile

WRITE = """
import os, sys
from executors.memory_file import MemoryFile
file = MemoryFile("sesame")
child = os.fork()
text = open(file.path).read()
if child:
    os.waitpid(child, 0)
print(text, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="files in memory are Linux's")
def test_a_process_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITE],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("sesame\nsesame\n", -signal.SIGKILL), done.stderr
    assert not list(tmp_path.iterdir())


def test_it_is_read_as_often_as_one_likes_until_it_is_closed() -> None:
    file = MemoryFile("d\u00e9j\u00e0")
    assert [Path(file.path).read_text(encoding="utf-8") for _ in range(2)] == ["d\u00e9j\u00e0"] * 2
    assert os.path.isfile(file.path) and file.there
    file.close()
    assert not file.there


def test_a_number_that_is_somebody_elses_by_now_is_left_alone(tmp_path: Path) -> None:
    file = MemoryFile("sesame")
    descriptor = int(Path(file.path).name)
    with (tmp_path / "other").open("w") as other:
        os.dup2(other.fileno(), descriptor)
        assert not file.there
        file.close()
        os.close(descriptor)
