"""flux-minicluster with instances on this machine, under both engines, as a user's shell sees it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from executors import load_config
from executors.provision.local import agent
from executors.provision.local.provisioner import LocalProvisioner
from tests.cli_runs import Cli, environment, interrupt, read_line
from tests.processes import alive, of_run
from tests.support.environment import engine_variables
from tests.support.waiting import wait_for

#: Says that it runs, and ends on nobody's word but a signal's.
ENDLESS = ("sh", "-c", "echo up; exec sleep 600")


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Where instances are; pytest's own directories are too long for sockets. Empty again in the end: an instance has
    ended when another one may begin, and its files go in the moment after.
    """
    path = Path(tempfile.mkdtemp(prefix="cli-", dir="/tmp"))
    yield path
    with suppress(AssertionError):  # what is left is named below
        wait_for(lambda: not left_in(path), "nothing is left")
    left = left_in(path)
    shutil.rmtree(path)
    assert left == []


def left_in(runtime: Path) -> list[str]:
    return [one.name for one in (runtime / "fluxop").glob("*") if one.name != "lock"]


@pytest.fixture
def cli(engine: str, runtime: Path, tmp_path: Path) -> Cli:
    return Cli(tmp_path, environment(runtime, **engine_variables(engine)), ["--provisioner", "local"])


@pytest.fixture
def name(cli: Cli) -> Iterator[str]:
    """An instance that is up."""
    yield cli("up", "--name", "a").out.strip()
    cli("down", "--name", "a", code=None)


def test_run_passes_output_and_exit_code_through(cli: Cli) -> None:
    done = cli("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7", code=7)
    assert done.out == "out\n"
    assert done.err.splitlines()[-1] == "err" and "provisioner: local" in done.err


def test_run_says_nothing_of_its_own_where_it_is_to_be_quiet(cli: Cli) -> None:
    done = cli("run", "-q", "echo", "-n", "x")
    assert (done.out, done.err) == ("x", "")


def test_output_comes_through_byte_for_byte_to_the_last(cli: Cli) -> None:
    sent = bytes(range(256)) * 800 + b"no newline at the end"
    (cli.directory / "sent").write_bytes(sent)
    done = subprocess.run(
        cli.argv("run", "--", "cat", "sent"), cwd=cli.directory, env=cli.environ, stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == sent


def test_the_jobs_stdin_is_empty_and_not_the_commands_own(cli: Cli) -> None:
    done = subprocess.run(
        cli.argv("run", "--", "cat"),
        cwd=cli.directory,
        env=cli.environ,
        input=b"unread",
        capture_output=True,
        check=True,
    )
    assert done.stdout == b""


def test_run_tells_a_signal_a_missing_program_and_an_impossible_job_apart(cli: Cli) -> None:
    assert "signal 9 (SIGKILL)" in cli("run", "--", "sh", "-c", "kill -9 $$", code=137).err
    assert "no-such-program" in cli("run", "--", "no-such-program", code=127).err
    assert "unsatisfiable" in cli("run", "-n", "100000", "--", "true", code=125).err


def test_run_ends_with_124_at_the_time_limit(cli: Cli) -> None:
    assert "at its time limit" in cli("run", "-t", "0.5", "--", "sleep", "600", code=124).err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_the_job_of_run_and_leaves_nothing(cli: Cli, runtime: Path, signum: signal.Signals) -> None:
    running = cli.start("run", "--", *ENDLESS)
    read_line(running, "stdout", "up")
    done = interrupt(running, signum)
    assert done.code == 130 and f"was cancelled by {signum.name}" in done.err
    assert left_in(runtime) == []


def test_a_job_that_is_cancelled_may_tidy_up_and_its_last_words_come_through(cli: Cli) -> None:
    running = cli.start("run", "--", "sh", "-c", "trap 'echo tidy; exit' TERM; echo up; while :; do sleep 0.1; done")
    read_line(running, "stdout", "up")
    done = interrupt(running)
    assert (done.code, done.out) == (130, "tidy\n")


def test_output_that_nobody_reads_any_more_ends_the_job(cli: Cli, runtime: Path) -> None:
    running = cli.start("run", "--name", "a", "--", "sh", "-c", "echo up; while :; do echo more; sleep 0.1; done")
    read_line(running, "stdout", "up")
    assert running.stdout is not None and running.stderr is not None
    running.stdout.close()
    assert running.wait() == 141
    assert "Traceback" not in running.stderr.read()
    running.stderr.close()
    [job] = cli("jobs", "a", "--all", "--json").json
    assert job["result"]["outcome"] == "CANCELLED"
    cli("down", "a")


def test_a_full_disk_is_told(cli: Cli) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            cli.argv("run", "--", "echo", "x"), cwd=cli.directory, env=cli.environ, stdout=full,
            stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1] == "flux-minicluster: cannot write: No space left on device"


def test_an_instance_from_its_start_to_its_end(cli: Cli, engine: str) -> None:
    up = cli("up", "--name", "a")
    name = up.out.strip()
    assert re.fullmatch(r"cli-a-[0-9a-f]{10}", name)
    assert cli("up", "--name", "a").out.strip() == name, "it is found, not made again"
    [row] = cli("list").out.splitlines()[1:]
    assert row.split()[:5] == [name, "local", "-", "running", "-"]
    [found] = cli("list", "--json").json
    assert (found["name"], found["provisioner"], found["state"]) == (name, "local", "running")

    for given in ("a", "cli-a", name):
        assert cli("status", given).out.startswith(f"{name}: running, age ")
    status = cli("status", "a", "--json").json
    is_flux = engine != "embedded"
    assert status["agent"]["engine"] == ("flux" if is_flux else engine)
    assert status["nodes"][0]["host"] == os.uname().nodename
    assert ("FLUX_URI=" in cli("status", "a").out) == is_flux

    cli("run", "--name", "a", "--", "sh", "-c", "echo out; echo err >&2; exit 3", code=3)
    assert cli("jobs", "a").out.split() == ["JOB", "NAME", "STATE", "OUTCOME", "CODE", "NODE"]
    [job] = cli("jobs", "a", "--all", "--json").json
    assert (job["name"], job["state"], job["result"]["returncode"]) == ("sh", "INACTIVE", 3)
    assert cli("jobs", "a", "-a").out.splitlines()[1].split()[1:5] == ["sh", "INACTIVE", "FAILED", "3"]
    logs = cli("logs", "a", job["id"])
    assert (logs.out, logs.err) == ("out\n", "err\n")

    assert "left alone: in use" in cli("reap", "--dry-run").out
    assert "only MiniClusters on Kubernetes" in cli("resize", "a", "2", code=2).err
    down = cli("down", "--name", "a")
    assert (down.out, down.err) == ("", f"{name} is gone\n")
    assert "there is no such instance on this machine" in cli("down", "--name", "a", code=1).err
    empty = cli("list")
    assert len(empty.out.splitlines()) == 1 and "no instances on this machine" in empty.err


def test_a_running_job_is_followed_and_cancelled(cli: Cli, name: str) -> None:
    running = cli.start("run", "--name", "a", "--", *ENDLESS)
    read_line(running, "stdout", "up")
    [job] = cli("jobs", name, "--json").json
    assert job["state"] == "RUN"
    followers = [cli.start("logs", name, job["id"]) for _ in range(2)]
    for one in followers:
        read_line(one, "stdout", "up")
    left = interrupt(followers[0])
    assert (left.code, left.err) == (130, "flux-minicluster: interrupted\n")
    assert [one["id"] for one in cli("jobs", name, "--json").json] == [job["id"]], "following a job is no part of it"
    said = cli("cancel", name, "f1", job["id"], code=1).err
    assert said == f"1 job cancelled: {job['id']}\nflux-minicluster: f1: no such job\n", "those that are there are"
    out, err = running.communicate()
    assert running.returncode == 130 and "was cancelled by flux-minicluster" in err and out == ""
    followers[1].communicate()
    assert followers[1].returncode == 0
    assert cli("cancel", name, "--all", "--json").json == {"cancelled": []}
    assert cli("cancel", name, job["id"]).err == f"{job['id']}: it had ended already\n0 jobs cancelled\n"


def test_an_instance_that_is_ended_under_a_job_has_cancelled_it(cli: Cli, name: str) -> None:
    running = cli.start("run", "--name", "a", "-q", "--", *ENDLESS)
    read_line(running, "stdout", "up")
    cli("down", name)
    out, err = running.communicate()
    assert (running.returncode, out) == (130, "")
    assert err == "flux-minicluster: the job was cancelled: the instance is shutting down\n"


def test_what_is_not_there_is_named(cli: Cli, name: str) -> None:
    assert f"nope: there is no such instance on this machine (existing: {name})" in cli("status", "nope", code=1).err
    assert "f1: no such job" in cli("logs", name, "f1", code=1).err
    assert "f1: no such job" in cli("cancel", name, "f1", code=1).err


def test_a_shell_completes_the_names_of_instances(cli: Cli, name: str) -> None:
    words = "flux-minicluster status --provisioner local cli-"
    cli.environ.update(_FLUX_MINICLUSTER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD="4")
    try:
        assert cli("status").out.splitlines() == [f"plain,{name}"]
    finally:
        del cli.environ["_FLUX_MINICLUSTER_COMPLETE"]


def test_down_ends_no_instance_whose_name_only_begins_so(cli: Cli, name: str) -> None:
    for given in ("cli", "c", name[:-1]):
        assert "there is no such instance" in cli("down", given, code=1).err
    assert cli("list", "--json").json


def test_an_instance_whose_agent_hangs_is_ended_by_force(
    cli: Cli, name: str, engine: str, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(runtime / "fluxop" / name)  # other test runs have instances of this name elsewhere
    agents = [process for process, argv in of_run(place) if "serve" in argv[:6] and not argv[0].endswith("sh")]
    assert agents
    for hanging in agents:
        hanging.suspend()
    monkeypatch.setattr(agent, "STOP_LIMIT", 0.1)
    provisioner = LocalProvisioner(name, load_config(environ=cli.environ), cli.environ, "for the test")
    provisioner.find(1.0)
    provisioner.delete()
    assert not [one for one in agents if alive(one.pid)]
    assert [one for one in left_in(runtime) if not one.endswith(".log")] == []
    (runtime / "fluxop" / f"{name}.log").unlink(missing_ok=True)


def test_an_instance_is_named_after_its_config(cli: Cli) -> None:
    text = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\nrun: {idleTimeout: 60}\n"
    (cli.directory / "mine.yaml").write_text(text)
    assert cli("up", "--config", "mine.yaml", "--json").json["name"].startswith("cli-mine-")
    assert cli("status", "mine", "--json").json["agent"]["idle_timeout"] == 60
    assert cli("down", "--config", "mine.yaml", "--json").json["ended"] is True


def test_an_interrupted_start_leaves_nothing(cli: Cli, runtime: Path) -> None:
    starting = cli.start("up", "--name", "a")
    read_line(starting, "stderr", "provisioner: local")
    done = interrupt(starting)
    if done.code != 130:  # it was up by then, and is there
        assert done.code == 0
        cli("down", "a")
    assert cli("list", "--json").json == []
    assert not list((runtime / "fluxop").glob("*.log"))


def test_an_instance_whose_run_is_killed_ends_soon_where_nobody_can_come_back(cli: Cli) -> None:
    running = cli.start("run", "--", *ENDLESS)
    read_line(running, "stdout", "up")
    [one] = cli("list", "--json").json
    assert cli("status", one["name"], "--json").json["agent"]["orphan_timeout"] == 60
    interrupt(running)


def test_a_cancelled_job_of_a_named_instance_leaves_the_instance(cli: Cli, name: str) -> None:
    running = cli.start("run", "--name", "a", "--", *ENDLESS)
    read_line(running, "stdout", "up")
    assert interrupt(running).code == 130
    assert cli("jobs", name, "--json").json == []
    cli("run", "--name", "a", "--", "true")


def test_a_shell_is_where_flux_talks_to_the_instance(cli: Cli, name: str, engine: str) -> None:
    if engine == "embedded":
        assert "it runs the embedded engine, so there is no Flux" in cli("shell", "a", "--", "true", code=1).err
        return
    done = cli("shell", "a", "--", "sh", "-c", "flux getattr size; echo wrong >&2; exit 7", code=7)
    assert (done.out, done.err) == ("1\n", "wrong\n")
    assert "No such file" in cli("shell", name, "--", "/nowhere", code=127).err
