"""The command ``flux`` beside real processes: whom a session lives for, its commands, a task on a machine elsewhere."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from executors.flux_command import environment, holders, inner, places
from tests.processes import alive

# -- who a session lives for


@pytest.mark.parametrize("pidfds", [True, False])
def test_the_end_of_a_process_is_heard_of(pidfds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "none here")

    process = subprocess.Popen(["sleep", "100"])

    async def hear() -> list[int]:
        ended: list[int] = []
        over = asyncio.Event()

        def on_end(pid: int) -> None:
            ended.append(pid)
            over.set()

        held = holders.Holders(asyncio.get_running_loop(), on_end)
        assert held.add(process.pid) and held.add(process.pid) and process.pid in held
        process.kill()
        process.wait()
        await asyncio.wait_for(over.wait(), 30)
        assert not held and not held.add(process.pid)
        held.close()
        return ended

    if not pidfds:
        monkeypatch.setattr(os, "pidfd_open", none)
    assert len(asyncio.run(hear())) == 1


# -- its commands


@pytest.mark.parametrize("perl", [True, False])
def test_a_session_directory_holds_commands_that_run(tmp_path: Path, perl: bool) -> None:
    real = tmp_path / "real" / "flux"
    real.parent.mkdir()
    real.write_text('#!/bin/sh\necho real "$@"\n')
    real.chmod(0o755)
    environ = {"PATH": f"{real.parent}:/usr/bin:/bin" if perl else str(real.parent)}
    environ["FLUX_OPERATOR_RUNTIME_DIR"] = str(tmp_path)
    directory = places.session_directory("run-0123456789", environ)
    lock = places.make(directory, environ, {"end": ["true"]})
    assert directory.alive()
    os.close(lock)  # as if its process had been killed
    inside = environment.for_nextflow(environ, str(directory.path))

    def flux(*words: str, **more: str) -> tuple[int, str]:
        done = subprocess.run(
            ["flux", *words], env={**inside, **more}, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        return done.returncode, done.stdout + done.stderr

    assert ("perl" in (directory.bin / "flux").read_text()) == (perl and shutil.which("perl") is not None)
    assert flux("version") == (0, "real version\n")
    assert flux("version", LC_ALL="no_SUCH", PERL5OPT="-Mnone") == (0, "real version\n")
    assert flux("submit", "x", FLUXOP_NEXTFLOW_TASK="1") == (0, "real submit x\n")
    # Nobody answers.
    code, text = flux(*["submit", "--setattr=cwd=/w", '--job-name="x"', "/bin/bash", ".command.run"])
    assert code == 1 and "-resume" in text
    assert flux("jobs") == (0, "") and flux("job", "cancel", "f1") == (0, "")
    real.unlink()
    code, text = flux("run", "x")
    assert code == 127 and "not installed" in text


# -- a task on a machine elsewhere


def flux_in_a_task(tmp_path: Path, script: str, **environ: str) -> str:
    """Output of a task with a command `flux` that prints its words, started as on a machine elsewhere."""
    tools, own = tmp_path / "to ols", tmp_path / "job"
    tools.mkdir()
    own.mkdir(exist_ok=True)
    (tools / "flux").write_text('#!/bin/sh\necho flux "$@"\n')
    (tools / "flux").chmod(0o755)
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "FLUX_JOB_TMPDIR": str(own), environment.TASK: "run", **environ}
    done = subprocess.run(elsewhere(script), env=env, capture_output=True, text=True, check=True, timeout=30)
    assert not done.stderr
    return done.stdout.replace(f"{tools}/", "")


def elsewhere(script: str) -> list[str]:
    return inner.command(["/bin/sh", "-c", script])


def test_flux_run_in_a_task_elsewhere_starts_an_instance_in_the_tasks_cores(tmp_path: Path) -> None:
    out = flux_in_a_task(tmp_path, "flux run -n2 'a b'; flux submit x; echo $0")
    assert out == "flux start flux run -n2 a b\nflux submit x\n/bin/sh\n"


def test_flux_run_in_that_instance_is_of_that_instance(tmp_path: Path) -> None:
    assert flux_in_a_task(tmp_path, "flux run x", FLUXOP_NEXTFLOW_INNER="1") == "flux run x\n"


def test_a_task_runs_where_the_program_for_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "fluxop-bin").touch()
    assert flux_in_a_task(tmp_path, "flux run x") == "flux run x\n"


@pytest.mark.parametrize(("script", "code"), [("exit 7", 7), ("exit 255", 255), ("kill -9 $$", -9), ("exit 147", 147)])
def test_the_status_of_a_task_elsewhere_is_passed_on(script: str, code: int) -> None:
    assert subprocess.run(elsewhere(script), stdin=subprocess.DEVNULL, timeout=30, check=False).returncode == code
    assert not os.path.exists("/fluxop-bin")  # where Flux has made no directory for the job


def test_what_a_task_elsewhere_leaves_at_term_is_killed_before_its_job_ends(tmp_path: Path) -> None:
    # In a group of its own, as of a job that starts a daemon; the task does not wait for it.
    script = "setsid sh -c 'trap \"\" TERM; echo $$ > pid; while sleep 0.1; do :; done' & echo; wait"
    env = {**os.environ, "FLUX_JOB_ID": f"f{os.getpid()}"}
    pid = tmp_path / "pid"
    with subprocess.Popen(
        elsewhere(script), cwd=tmp_path, env=env, stdout=subprocess.PIPE, start_new_session=True
    ) as task:
        assert task.stdout is not None and task.stdout.readline()
        while not pid.exists() or not pid.read_text().strip():
            time.sleep(0.05)
        os.killpg(task.pid, signal.SIGTERM)
        assert task.wait(60) == 143
        assert not alive(int(pid.read_text()))


def test_what_a_task_elsewhere_leaves_of_its_own_accord_is_not_waited_for(tmp_path: Path) -> None:
    with subprocess.Popen(elsewhere("setsid sleep 30 & echo $!"), stdout=subprocess.PIPE, text=True) as task:
        assert task.stdout is not None
        pid = int(task.stdout.readline())
        assert task.wait(20) == 0 and alive(pid)
        os.kill(pid, signal.SIGKILL)
