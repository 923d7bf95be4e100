"""What docs/engines.md does not name as a difference: the same job does the same on both engines."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from executors import JobRequest, Outcome, Session
from executors.provision.local.rundir import base_directory
from tests.support.environment import environment
from tests.support.jobs import run
from tests.support.waiting import LIMIT


def said(session: Session, *argv: str, **fields: object) -> str:
    [handle] = session.submit([JobRequest(argv=argv, **fields)])  # type: ignore[arg-type]
    result = handle.result(LIMIT)
    assert result.ok, (result.describe(), b"".join(handle.output("stderr")))
    return b"".join(handle.output()).decode()


@pytest.mark.parametrize("place", ["gone", "file"])
def test_a_working_directory_that_is_none_fails_the_job_by_its_name(
    session: Session, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    result = run(session, "touch", "made-where-nobody-looks", cwd=str(tmp_path / place))
    assert result.outcome is Outcome.FAILED and result.returncode
    assert result.exception is not None and result.exception.type == "exec"
    assert f"the working directory {tmp_path / place}: " in result.exception.note
    assert not Path("/tmp/made-where-nobody-looks").exists()


def test_a_working_directory_may_be_made_by_an_earlier_job(session: Session, tmp_path: Path) -> None:
    cores = session.nodes()[0].cores
    first, second = session.submit(
        [
            JobRequest(argv=["sh", "-c", f"sleep 0.2; mkdir {tmp_path}/later"], cores_per_task=cores),
            JobRequest(argv=["touch", "x"], cwd=f"{tmp_path}/later", cores_per_task=cores),
        ]
    )
    assert first.result(LIMIT).ok and second.result(LIMIT).ok and (tmp_path / "later" / "x").exists()


def test_a_script_without_an_interpreter_line_is_run_by_sh(session: Session, tmp_path: Path) -> None:
    script = tmp_path / "without-a-line"
    script.write_text('echo "$0 $1"\n')
    script.chmod(0o755)
    assert said(session, str(script), "a b") == f"{script} a b\n"
    assert said(session, "without-a-line", "c", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}) == f"{script} c\n"


@pytest.mark.parametrize("path", [None, "/nowhere"])
def test_a_program_is_looked_for_in_the_jobs_own_path(session: Session, path: str | None) -> None:
    if path is None:
        assert said(session, "sh", "-c", 'echo "${PATH-none}"', env={"PATH": None}) != ""
    else:
        result = run(session, "sh", "-c", "true", env={"PATH": path})
        assert (result.outcome, result.returncode) == (Outcome.FAILED, 127)


def test_what_may_not_be_executed_says_so(session: Session, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    for program in (tmp_path / "text", tmp_path):
        result = run(session, str(program))
        assert (result.outcome, result.returncode) == (Outcome.FAILED, 126)
        assert result.exception is not None and "Permission denied" in result.exception.note


def test_more_arguments_than_the_kernel_takes_fail_the_job(session: Session) -> None:
    result = run(session, "true", *["x" * 100_000] * 60)
    assert result.outcome is Outcome.FAILED and result.returncode
    assert result.exception is not None and "Argument list too long" in result.exception.note


def test_stdin_is_empty(session: Session) -> None:
    assert said(session, "sh", "-c", "cat; readlink /proc/self/fd/0") == "/dev/null\n"


def test_a_job_finds_no_descriptors_but_its_streams(session: Session) -> None:
    # The fourth is the directory that it reads. (A shell would have pipes, for a moment.)
    assert said(session, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_are_not_ignored(session: Session, number: signal.Signals) -> None:
    result = run(session, "sh", "-c", f"kill -{int(number)} $$; sleep 600")
    assert (result.outcome, result.signal) == (Outcome.SIGNALED, number)


def test_limits_and_the_mask_for_new_files_are_the_clients(session: Session) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert int(said(session, "sh", "-c", "umask"), 8) == mask


#: Names that shells have themselves, count in or act on, that loaders like to use, and plain ones.
NAMES = [
    "f", "n", "path", "IFS", "ENV", "BASH_ENV", "PS4", "UID", "EUID", "PPID", "GROUPS", "SHELLOPTS", "BASHOPTS", "BASH",
    "RANDOM", "SECONDS", "LINENO", "OPTIND", "PWD", "OLDPWD", "_", "REPLY", "LC_ALL", "LANG", "POSIXLY_CORRECT",
    "TMOUT", "HOME", "SHLVL", "PERL5OPT", "PYTHONHOME", "LD_LIBRARY_PATH", "GLOBIGNORE",
]  # fmt: skip


def test_a_secret_may_have_any_name(session: Session, tmp_path: Path, need: object) -> None:
    """Seen by a program that is no shell, since a shell would not show all of them."""
    precious = tmp_path / "precious"
    precious.write_text("x")
    secrets = {name: str(precious) for name in NAMES}
    [handle] = session.submit([JobRequest(argv=["cat", "/proc/self/environ"], secret_env=secrets)])
    result = handle.result(LIMIT)
    assert result.ok, (result.describe(), b"".join(handle.output("stderr")))
    found = dict(entry.split(b"=", 1) for entry in b"".join(handle.output()).split(b"\0") if entry)
    assert {name: found.get(name.encode(), b"").decode() for name in NAMES} == secrets
    assert precious.read_text() == "x", "nobody has taken it for one of our files"
    directory = base_directory(environment()) / session.run_name
    assert not list(directory.glob("env-*"))


def test_a_secret_path_is_where_programs_are_looked_for(session: Session, tmp_path: Path) -> None:
    program = tmp_path / "mine"
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    assert said(session, "mine", secret_env={"PATH": str(tmp_path)}) == "mine\n"


@pytest.mark.parametrize("value", ["", "two\nlines\n", "a=b=c", "'\"`$(id)`", "ünï"])
def test_a_secret_is_exact(session: Session, value: str) -> None:
    assert said(session, "sh", "-c", 'printf %s "$S"', secret_env={"S": value}) == value
