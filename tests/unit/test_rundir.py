"""Where runs live on this machine, who has one, and what is removed: never what may belong to a living instance."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executors import ProvisionError
from executors.names import PLACE_VARIABLE
from executors.provision.local import rundir
from executors.provision.local.rundir import RunDirectory, base_directory, find_place, prune


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = tmp_path / "tmp", tmp_path / "var-tmp"
    for root in found:
        root.mkdir()
    monkeypatch.setattr(rundir, "_ROOTS", tuple(map(str, found)))
    return found


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path, "run-0123456789")


def test_it_is_the_same_whatever_the_login_says(roots: tuple[Path, Path], tmp_path: Path) -> None:
    found = find_place({})
    assert found.path == roots[0] / f"fluxop-{os.getuid()}" and not found.reason
    assert found.path.stat().st_mode & 0o777 == 0o700
    # The first is removed at the user's last logout, the second belongs to one job of a batch system.
    assert base_directory({"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}) == found.path


def _file(path: Path) -> None:
    path.write_text("")


def _open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o770)


def _link(path: Path) -> None:
    path.symlink_to(path.parent)


def _dangling(path: Path) -> None:
    path.symlink_to("/nowhere")


def _of_another(path: Path) -> None:
    if os.geteuid():
        pytest.skip("a directory of another user can be made by root only; run this test as root")
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("take", [_file, _open_to_others, _link, _dangling, _of_another])
def test_a_name_that_somebody_else_has_taken_stops_nobody(
    roots: tuple[Path, Path], take: Callable[[Path], None]
) -> None:
    usual = roots[0] / f"fluxop-{os.getuid()}"
    take(usual)
    first = find_place({})
    assert first.path.name.startswith(f"fluxop-{os.getuid()}-") and str(usual) in first.reason
    assert first.path.stat().st_mode & 0o777 == 0o700
    assert find_place({}) == first
    # Instances may live there, so it stays the place also when the name is free.
    if usual.is_dir() and not usual.is_symlink():
        usual.rmdir()
    else:
        usual.unlink()
    assert find_place({}).path == first.path


def test_clients_that_come_at_once_find_one_place(roots: tuple[Path, Path]) -> None:
    _file(roots[0] / f"fluxop-{os.getuid()}")
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(base_directory({}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1


def test_what_only_looks_open_is_closed(roots: tuple[Path, Path]) -> None:
    usual = roots[0] / f"fluxop-{os.getuid()}"
    usual.mkdir()
    usual.chmod(0o755)
    assert base_directory({}) == usual
    assert usual.stat().st_mode & 0o777 == 0o700


def test_no_place_at_all_is_an_error_that_names_the_cure(roots: tuple[Path, Path], tmp_path: Path) -> None:
    for root in roots:
        root.rmdir()
    with pytest.raises(ProvisionError, match=f"set {PLACE_VARIABLE}"):
        base_directory({})
    assert base_directory({PLACE_VARIABLE: str(tmp_path)}) == tmp_path / "fluxop"
    for wrong in (str(tmp_path / "not-there"), "relative"):
        with pytest.raises(ProvisionError, match=f"{PLACE_VARIABLE}: .*{wrong.rpartition('/')[2]}"):
            base_directory({PLACE_VARIABLE: wrong})


# -- whose it is


@pytest.fixture
def living(directory: RunDirectory) -> Iterator[RunDirectory]:
    fd = directory.create(b"agent")
    yield directory
    os.close(fd)


def test_an_instance_lives_as_long_as_anybody_holds_its_lock(directory: RunDirectory) -> None:
    keeper = directory.create(b"agent")
    agent = os.open(directory.path / rundir.INSTANCE_LOCK, os.O_RDONLY)
    fcntl.flock(agent, fcntl.LOCK_SH)
    os.close(keeper)
    assert directory.alive()
    directory.remove()
    prune(directory.base)
    assert directory.agent.exists()
    os.close(agent)
    assert not directory.alive()
    prune(directory.base)
    assert not directory.path.exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO, errno.ELOOP])
def test_a_lock_that_cannot_be_looked_at_is_not_free(
    living: RunDirectory, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def failing(path: str | Path, *args: int) -> int:
        if str(path).endswith(rundir.INSTANCE_LOCK):
            raise OSError(number, os.strerror(number))
        return real(path, *args)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(ProvisionError, match="cannot tell whether"):
        living.alive()
    prune(living.base)
    living.remove()
    assert not living.wait_gone(living.which(), 0.0)
    assert living.agent.exists()


def test_the_next_instance_is_not_waited_for(directory: RunDirectory) -> None:
    os.close(directory.create(b"first"))
    first = directory.which()
    fd = directory.create(b"second")
    assert directory.wait_gone(first, 0.0)
    assert not directory.wait_gone(directory.which(), 0.0)
    os.close(fd)
    assert directory.wait_gone(directory.which(), 0.0) and not directory.path.exists()


def test_who_holds_the_lock_of_all_runs_is_named(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "LOCK_LIMIT", 0.1)
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); time.sleep(99)"
    )
    argv = [sys.executable, "-c", program, str(directory.base / "lock")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        os.waitpid(holder.pid, os.WUNTRACED)
        held = rf"process {holder.pid} \(.*\), which is stopped"
        try:
            with pytest.raises(ProvisionError, match=held), directory.locked():
                pass
            prune(directory.base)  # does not wait for it
        finally:
            holder.kill()
    with directory.locked():
        pass
