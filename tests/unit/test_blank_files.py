"""Output files that are used again: only where nobody could tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from executors.agent.embedded.blank_files import BlankFiles


def make(path: Path) -> str:
    path.touch()
    return str(path)


def number(path: Path) -> int:
    return path.stat().st_ino


def test_an_empty_file_is_the_next_ones(tmp_path: Path) -> None:
    files = BlankFiles()
    old = make(tmp_path / "1.out")
    inode = number(tmp_path / "1.out")
    files.put(old)
    files.give(str(tmp_path / "2.out"))
    assert [path.name for path in tmp_path.iterdir()] == ["2.out"]
    assert number(tmp_path / "2.out") == inode


def test_without_one_there_is_none_as_before(tmp_path: Path) -> None:
    files = BlankFiles()
    files.give(str(tmp_path / "1.out"))
    files.put(str(tmp_path / "of a job that has removed it"))
    files.give(str(tmp_path / "2.out"))
    assert list(tmp_path.iterdir()) == []


def written(path: Path) -> None:
    path.write_text("x")


def linked(path: Path) -> None:
    os.link(path, path.with_name("another name"))


def closed_to_us(path: Path) -> None:
    path.chmod(0o000)


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link(path: Path) -> None:
    path.with_name("elsewhere").touch()
    path.unlink()
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("change", [written, linked, closed_to_us, a_fifo, a_link])
def test_what_a_job_has_changed_is_removed(tmp_path: Path, change: object) -> None:
    assert callable(change)
    files = BlankFiles()
    make(tmp_path / "1.out")
    change(tmp_path / "1.out")
    files.put(str(tmp_path / "1.out"))
    assert not os.path.lexists(tmp_path / "1.out")
    files.give(str(tmp_path / "2.out"))
    assert not (tmp_path / "2.out").exists()


def test_a_file_that_a_daemon_may_write_into_is_removed(tmp_path: Path) -> None:
    """It holds the very description that its job was given; nothing else of it can be seen from here."""
    files = BlankFiles()
    with (tmp_path / "1.out").open("wb") as file:
        daemon = subprocess.Popen(["sh", "-c", "read x; echo late"], stdin=subprocess.PIPE, stdout=file)
    files.put(str(tmp_path / "1.out"))
    assert not (tmp_path / "1.out").exists()
    files.give(str(tmp_path / "2.out"))
    daemon.communicate(b"\n")
    assert not (tmp_path / "2.out").exists()


_OPENS = """
import os, sys
print(flush=True)
while True:
    for name in os.listdir(sys.argv[1]):
        try:
            os.close(os.open(os.path.join(sys.argv[1], name), os.O_RDONLY))
        except FileNotFoundError:
            pass
"""


def test_somebody_who_opens_files_at_any_moment_ends_nobody(tmp_path: Path) -> None:
    """A virus scanner, say: the kernel tells who holds a lease by a signal."""
    program = (
        "from executors.agent.embedded.blank_files import BlankFiles\n"
        "import sys\n"
        "files = BlankFiles()\n"
        "open(sys.argv[1] + '/0', 'w').close()\n"
        "for index in range(4000):\n"
        "    files.put(f'{sys.argv[1]}/{index}')\n"
        "    files.give(f'{sys.argv[1]}/{index + 1}')\n"
        "    open(f'{sys.argv[1]}/{index + 1}', 'a').close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", _OPENS, str(tmp_path)], stdout=subprocess.PIPE) as opener:
        assert opener.stdout is not None
        opener.stdout.readline()
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
        opener.kill()
    assert done.returncode == 0


def test_no_more_are_kept_than_are_of_use(tmp_path: Path) -> None:
    files = BlankFiles()
    for index in range(1000):
        files.put(make(tmp_path / str(index)))
    assert len(list(tmp_path.iterdir())) < 300
