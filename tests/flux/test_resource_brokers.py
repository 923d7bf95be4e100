"""The pods of a MiniCluster resource on this machine: how they end, what they share, what they save."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.flux.pods import MakePods, ended, spec_of, until


@pytest.fixture
def pods(pods: MakePods) -> MakePods:
    return partial(pods, resource=True)


def test_a_follower_whose_lead_has_ended_waits_for_the_jobs_word(pods: MakePods) -> None:
    made = pods(spec_of("hostname"))
    lead, follower = made.start(0), made.start(1)
    assert ended([lead])[0][0] == 0
    follower.send_signal(signal.SIGTERM)
    assert ended([follower])[0][0] in (0, 76), "told while its broker ended, or after that"


def test_a_follower_that_nobody_ends_is_made_anew_with_its_lead(pods: MakePods) -> None:
    lead, follower = pods(spec_of("hostname")).run()
    assert (lead[0], follower[0]) == (0, 76)


def test_complete_workers_are_not_started_again(pods: MakePods) -> None:
    lead, follower = pods(spec_of("hostname", flux={"completeWorkers": True})).run()
    assert (lead[0], follower[0]) == (0, 0)


@pytest.mark.parametrize("launcher", [False, True])
def test_jobs_that_trap_term_write_their_files_when_it_is_deleted(
    pods: MakePods, tmp_path: Path, launcher: bool
) -> None:
    """Nobody but the broker ends them: the command itself is told nothing of them."""
    trap = f"trap 'sleep 1; echo saved >{tmp_path}/saved-$FLUX_TASK_RANK; exit 0' TERM"
    (tmp_path / "job.sh").write_text(f"{trap}; touch {tmp_path}/up-$FLUX_TASK_RANK; while :; do sleep 0.1; done")
    command = f"flux run -N2 sh {tmp_path}/job.sh" if launcher else f"sh {tmp_path}/job.sh"
    made = pods(spec_of(command, tasks=2, container={"launcher": launcher}))
    processes = [made.start(0), made.start(1)]
    until(lambda: all((tmp_path / f"up-{rank}").exists() for rank in (0, 1)))
    for process in processes:
        process.send_signal(signal.SIGTERM)
    lead, follower = ended(processes)
    assert all((tmp_path / f"saved-{rank}").exists() for rank in (0, 1)), lead[2]
    assert lead[0] == 77, "told to end, it has not failed: the next lead begins again"
    assert follower[0] == 76


def test_a_job_that_ignores_term_is_killed_before_its_pod_is(pods: MakePods, tmp_path: Path) -> None:
    # Kubernetes ends what is left in a pod; here the job does, at the end of the test.
    loop = f"while [ ! -e {tmp_path}/end ]; do sleep 0.1; done"
    (tmp_path / "job.sh").write_text(f"trap '' TERM HUP INT; touch {tmp_path}/up; {loop}")
    made = pods(spec_of(f"sh {tmp_path}/job.sh", size=1))
    lead = made.start(0)
    until((tmp_path / "up").exists)
    lead.send_signal(signal.SIGTERM)
    try:
        assert ended([lead])[0][0] == 77
    finally:
        (tmp_path / "end").touch()


def test_the_instance_is_found_where_upstreams_users_look_and_says_when_it_runs(pods: MakePods) -> None:
    made = pods(spec_of("", interactive=True))
    lead = made.start(0)
    view = made.directory(0) / "view"
    until(lambda: (view / "load-fluxion.sh").exists())
    assert made.probe(0, "startupProbe") == 1, "its quorum is two"
    made.start(1)
    assert made.probe(0, "startupProbe") == 0
    assert made.probe(1, "startupProbe") == 0
    script = f". {view}/flux-view.sh && flux proxy $fluxsocket flux getattr size"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLUX")}
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2", done.stderr
    assert (view / "flux-connect.sh").exists()
    assert lead.poll() is None


def test_ranks_that_are_to_go_end_with_their_jobs_and_come_back(pods: MakePods, tmp_path: Path) -> None:
    script = f"""
    flux run --quiet --requires=rank:1 sh -c 'touch {tmp_path}/up; while [ ! -e {tmp_path}/end ]; do sleep 0.1; done' &
    while [ ! -e {tmp_path}/off ]; do sleep 0.1; done
    flux resource list -s free -no 'free {{ranks}}'
    while [ ! -e {tmp_path}/on ]; do sleep 0.1; done
    flux run --requires=rank:1 echo again
    """
    made = pods(spec_of(script, container={"launcher": True}))
    made.prepare(0)
    wish = made.directory(0) / "files_wish" / "size"
    wish.parent.mkdir()
    wish.write_text("")
    lead, follower = made.start(0), made.start(1)
    until((tmp_path / "up").exists)
    wish.write_text("1")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLUX")}
    environ["FLUX_URI"] = f"local://{made.state(0)}/flux/local"

    def drained() -> str:
        argv = ["flux", "resource", "drain", "-no", "{ranks}"]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False).stdout.strip()

    until(lambda: drained() == "1")
    assert follower.poll() is None, "it has a job"
    (tmp_path / "end").touch()
    assert ended([follower])[0][0] == 76
    (tmp_path / "off").touch()
    wish.write_text("2")
    until(lambda: drained() == "")
    made.start(1)
    (tmp_path / "on").touch()
    [(code, out, err)] = ended([lead])
    assert code == 0, err
    assert out.splitlines() == ["free 0", "again"]


# -- saved state


def saving(tmp_path: Path, command: str) -> dict[str, Any]:
    return spec_of(command, size=1, archive={"path": str(tmp_path / "state.tar")}, container={"launcher": True})


def names_of(archive: Path) -> list[str]:
    with tarfile.open(archive) as found:
        return found.getnames()


def test_pending_jobs_outlive_a_lead_that_is_told_to_end(pods: MakePods, tmp_path: Path) -> None:
    submit = "flux submit --quiet --job-name=later --urgency=0 true; flux submit --quiet --job-name=now sleep inf"
    made = pods(saving(tmp_path, f"{submit}; touch {tmp_path}/up; sleep 100"))
    lead = made.start(0)
    until((tmp_path / "up").exists)
    lead.send_signal(signal.SIGTERM)
    assert ended([lead])[0][0] == 77
    [again] = pods(saving(tmp_path, "flux jobs -a -no '{name} {status_abbrev}'")).run([0])
    assert again[0] == 0, again[2]
    assert {"later S", "now CA"} <= set(again[1].splitlines()), again[1]


def test_a_dump_that_failed_leaves_the_last_good_one(pods: MakePods, tmp_path: Path) -> None:
    archive = tmp_path / "state.tar"
    [first] = pods(saving(tmp_path, "flux run true")).run([0])
    assert first[0] == 0
    before = archive.read_bytes()
    # As a disk that is full makes it: cut short, before anybody looks at it.
    cut = f"import os,sys; p='{tmp_path}/.unfinished-state.tar'; os.path.exists(p) and os.truncate(p, 5000)"
    hook = f'flux() {{ if [ "$1" = python ]; then python3 -c "{cut}"; fi; command flux "$@"; }}'
    document = saving(tmp_path, "flux run true")
    document["containers"][0]["commands"] = {"init": hook}
    [second] = pods(document).run([0])
    assert "could not be saved whole" in second[2]
    assert archive.read_bytes() == before
    assert not (tmp_path / ".unfinished-state.tar").exists()


@pytest.mark.parametrize(("size", "tasks"), [(4, 1), (2, 2), (2, 5), (3, 3), (4, 3)])
def test_a_commands_job_is_what_flux_run_would_submit(pods: MakePods, size: int, tasks: int) -> None:
    variables = pods(spec_of("hostname -f", size=size, tasks=tasks)).template["containers"][0]["env"]
    [text] = [one["value"] for one in variables if one["name"] == "FLUXOP_JOB"]
    ours = json.loads(text)
    nodes = [f"-N{size}"] if tasks >= size else []
    flux_run = ["flux", "run", "--dry-run", *nodes, f"-n{tasks}", "-o", "cpu-affinity=off", "hostname", "-f"]
    theirs = json.loads(subprocess.run(flux_run, capture_output=True, text=True, check=True).stdout)
    for one in (ours, theirs):  # what the pod adds
        del one["attributes"]["system"]["cwd"], one["attributes"]["system"]["environment"]
    del theirs["attributes"]["system"]["shell"]["options"]["rlimit"]
    assert ours == theirs


def test_a_commands_job_has_the_environment_the_directory_and_the_limits_of_its_pod(pods: MakePods) -> None:
    script = "pwd; echo $NOTE; ulimit -n"
    [lead] = pods(spec_of(script, size=1)).run([0], NOTE="a note")
    directory, note, limit = lead[1].splitlines()[:3]
    assert (directory, note) == (os.getcwd(), "a note")
    assert int(limit) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_a_command_of_fewer_tasks_sees_all_brokers(pods: MakePods) -> None:
    made = pods(spec_of("flux resource list -s up -no {nnodes}", size=2, tasks=1))
    lead = made.start(0)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLUX")}
    environ["FLUX_URI"] = f"local://{made.state(0)}/flux/local"

    def urgencies() -> list[str]:
        argv = ["flux", "jobs", "-no", "{urgency}"]
        return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False).stdout.split()

    until(lambda: urgencies() == ["0"])
    follower = made.start(1)
    assert ended([lead])[0][:2] == (0, "2\n")
    follower.send_signal(signal.SIGTERM)
    ended([follower])


def test_a_command_that_can_never_run_says_why(pods: MakePods) -> None:
    [lead] = pods(spec_of("true", size=1, tasks=3, container={"resources": {"requests": {"cpu": 1}}})).run([0])
    assert lead[0] == 1
    assert "unsatisfiable request" in lead[2]
