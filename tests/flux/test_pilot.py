"""Pilots on real Flux: what is killed, cancelled, drained or shared with Flux's own jobs."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from pathlib import Path

import pytest

from executors import JobHandle, JobRequest, Outcome, RunId
from executors.agent.pilot.short_jobs import MANY
from executors.names import run_name
from tests.flux.pilots import Opener, cores, flux, free_cores, holders, pids, stays, wait_for_one_that_is_free
from tests.processes import alive, of_run
from tests.support.jobs import counted, run
from tests.support.sessions import agent_pid, ask, directory_of
from tests.support.waiting import LIMIT, wait_for


def test_tasks_are_the_pilots_and_what_only_flux_gives_is_fluxes(pilots: Opener) -> None:
    session = pilots("kinds")
    task = session.submit_one(JobRequest(argv=["true"]))
    job = session.submit_one(JobRequest(argv=["true"], nodes=1, tasks=1))
    assert task.result(LIMIT).ok and job.result(LIMIT).ok
    assert str(task.id).startswith("p") and str(job.id).startswith("f")
    assert {one.id for one in session.jobs(ids=[str(task.id), str(job.id)])} == {task.id, job.id}


def test_a_task_has_its_core_and_a_directory_that_goes_with_it(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("own")
    script = f'echo "$FLUX_JOB_TMPDIR" > {tmp_path}/dir; mkdir "$FLUX_JOB_TMPDIR/x"; nproc > {tmp_path}/nproc; pwd -P'
    assert run(session, "sh", "-c", script).ok
    assert (tmp_path / "nproc").read_text() == "1\n"
    directory = Path((tmp_path / "dir").read_text().strip())
    wait_for(lambda: not directory.exists(), "the directory is removed")
    assert run(session, "sh", "-c", f"nproc > {tmp_path}/nproc", cores_per_task=cores(session)).ok
    assert (tmp_path / "nproc").read_text() == f"{cores(session)}\n"


def test_a_task_finds_what_flux_gives_its_own_jobs(pilots: Opener, tmp_path: Path) -> None:
    """GPUs that it was not given above all: those of its node may be others'."""
    session = pilots("variables")
    env = {"TMPDIR": f"{tmp_path}/made", "CUDA_VISIBLE_DEVICES": "0,1"}
    requests = [
        JobRequest(argv=["cat", "/proc/self/environ"], env=env),
        JobRequest(argv=["cat", "/proc/self/environ"], env=env, nodes=1, tasks=1),
        JobRequest(argv=["sh", "-c", "echo $TMPDIR"], env={"TMPDIR": "/proc/cannot/be"}),
    ]
    handles = session.submit(requests)
    assert all(handle.result(LIMIT).ok for handle in handles)
    task, job, last = (b"".join(handle.output()).decode() for handle in handles)
    ours, flux_own = (dict(one.split("=", 1) for one in text.split("\0") if one) for text in (task, job))
    # The first three are the job's in Flux's store; PMI and its like are for jobs of several tasks.
    only_flux = {"FLUX_JOB_ID_PATH", "FLUX_KVS_NAMESPACE", "FLUX_TERMINUS_SESSION"}
    assert {name for name in flux_own.keys() - ours.keys() if not name.startswith("PMI_")} == only_flux
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "TMPDIR", "FLUX_URI", "FLUX_JOB_NNODES"):
        assert ours[name] == flux_own[name], name
    assert ours["CUDA_VISIBLE_DEVICES"] == "-1" and (tmp_path / "made").is_dir()
    assert last == "/tmp\n"


def test_with_auto_short_jobs_go_to_pilots_once_there_are_many(pilots: Opener) -> None:
    session = pilots("auto", pilot="auto")
    first = [session.submit_one(JobRequest(argv=["true"])) for _ in range(MANY)]
    assert all(handle.result(LIMIT).ok for handle in first)
    assert all(str(handle.id).startswith("f") for handle in first)

    def is_for_a_pilot() -> bool:
        handle = session.submit_one(JobRequest(argv=["true"]))
        assert handle.result(LIMIT).ok
        return str(handle.id).startswith("p")

    wait_for(is_for_a_pilot, "a pilot has come")


@pytest.mark.parametrize("how", ["cancelled", "killed"])
def test_a_holder_that_goes_takes_its_task_with_it_before_its_core_is_free(
    pilots: Opener, tmp_path: Path, how: str
) -> None:
    session = pilots(f"holder-{how}")
    count = cores(session)
    started = [stays(session, tmp_path / str(number)) for number in range(count)]
    wait_for(lambda: len(holders(session)) == count, "each core is held")
    assert free_cores(session) == 0
    if how == "cancelled":
        flux(session, "cancel", holders(session)[0])
    else:
        os.kill(pids(session, "hold")[0], signal.SIGKILL)
    running = {pid for pids, _ in started for pid in pids}
    wait_for_one_that_is_free(lambda: free_cores(session), count, running)
    results = [handle.result(0) for _, handle in started if handle.done()]
    assert [result.outcome for result in results] == [Outcome.LOST]
    assert "core was taken away" in results[0].describe()
    assert run(session, "true").ok


def test_a_pilot_that_is_killed_loses_its_tasks_and_leaves_none_running(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("killed")
    started, handle = stays(session, tmp_path / "a")
    [pilot] = pids(session, "pilot")
    os.kill(pilot, signal.SIGKILL)
    result = handle.result(LIMIT)
    assert result.outcome is Outcome.LOST
    assert "pilot on rank 0" in result.describe()
    wait_for(lambda: not any(map(alive, started)), "what the task has left is ended")
    assert run(session, "true").ok
    assert pids(session, "pilot") != [pilot]


def test_a_pilot_that_is_terminated_gives_back_what_it_has_not_begun(pilots: Opener, tmp_path: Path) -> None:
    """While its task takes its time to end, no other is lost."""
    session = pilots("terminated")
    started = [stays(session, tmp_path / str(number)) for number in range(cores(session))]
    waiting = session.submit([JobRequest(argv=["true"]) for _ in range(20)])
    waiting[-1].wait_submitted(LIMIT)
    [pilot] = pids(session, "pilot")
    os.kill(pilot, signal.SIGTERM)
    later = [session.submit_one(JobRequest(argv=["true"])) for _ in range(20)]
    assert [handle.result(LIMIT).outcome for _, handle in started] == [Outcome.LOST] * len(started)
    assert {handle.result(LIMIT).outcome for handle in (*waiting, *later)} == {Outcome.COMPLETED}
    assert not any(alive(pid) for pids, _ in started for pid in pids)


def test_a_task_survives_the_agent_and_one_that_waits_runs_once(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("restart")
    count = cores(session)
    go, out = tmp_path / "go", tmp_path / "out"
    script = f"echo up >> {tmp_path}/up; while [ ! -e {go} ]; do sleep 0.02; done; echo ran >> {out}"
    first = session.submit([JobRequest(argv=["sh", "-c", script], key=f"runs-{n}") for n in range(count)])
    wait_for(lambda: (tmp_path / "up").exists() and (tmp_path / "up").read_text().count("up") == count, "all run")
    requests = [counted(out, key=f"waits-{n}", secret_env={"TOKEN": "x"}) for n in range(50)]
    waiting = session.submit(requests)
    wait_for(lambda: all(handle.id for handle in waiting), "they are taken")
    os.kill(agent_pid(session), signal.SIGKILL)
    again = session.submit(requests)
    go.touch()
    results = [handle.result(LIMIT) for handle in [*first, *waiting, *again]]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    assert [handle.id for handle in waiting] == [handle.id for handle in again]
    assert out.read_text().count("ran") == count + 50


def test_a_task_that_was_cancelled_in_the_line_is_not_waited_for_by_a_later_agent(
    pilots: Opener, tmp_path: Path
) -> None:
    session = pilots("cancelled")
    go = tmp_path / "go"
    blocks = JobRequest(argv=["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.02; done"])
    # A pilot is sent two for each core; the last one waits in the agent's line.
    *others, last = session.submit([blocks] * (2 * cores(session) + 1))
    wait_for(lambda: len(holders(session)) == cores(session), "each core is held")
    last.cancel()
    assert last.result(LIMIT).outcome is Outcome.CANCELLED
    os.kill(agent_pid(session), signal.SIGKILL)
    go.touch()
    assert all(handle.result(LIMIT).ok for handle in others)
    wait_for(lambda: free_cores(session) == cores(session), "all cores are Flux's again")
    assert run(session, "true").ok


def test_a_pilot_that_vanished_with_the_agent_loses_its_tasks(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("both")
    started, handle = stays(session, tmp_path / "a")
    os.kill(pids(session, "pilot")[0], signal.SIGKILL)
    os.kill(agent_pid(session), signal.SIGKILL)
    result = handle.result(LIMIT)
    assert result.outcome is Outcome.LOST and "gone" in result.describe()
    wait_for(lambda: not any(map(alive, started)), "what the task has left is ended")


def test_large_jobs_of_flux_and_many_tasks_share_the_cores(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("mixed")
    count = cores(session)
    log = tmp_path / "log"
    body = f"echo $$ >> {log}"
    tasks = session.submit([JobRequest(argv=["sh", "-c", body], key=f"t{n}") for n in range(300)])
    wide = session.submit(
        [JobRequest(argv=["sh", "-c", f"echo wide >> {log}"], nodes=1, tasks=count) for _ in range(3)]
    )
    more = session.submit([JobRequest(argv=["sh", "-c", body], key=f"m{n}") for n in range(300)])
    results = [handle.result(LIMIT * 2) for handle in [*tasks, *wide, *more]]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]
    lines = log.read_text().splitlines()
    assert len(lines) == 600 + 3 * count
    assert max(at for at, line in enumerate(lines) if line == "wide") < len(lines) - 1, "large jobs came last"


def test_a_job_of_flux_gets_a_core_of_the_tasks_though_another_one_runs_for_long(pilots: Opener) -> None:
    session = pilots("beside")
    if cores(session) < 2:
        pytest.skip("needs two cores: a job of Flux has one for long")
    long = session.submit_one(JobRequest(argv=["sleep", "600"], nodes=1, tasks=1))
    wait_for(lambda: free_cores(session) == cores(session) - 1, "it runs")
    tasks = session.submit([JobRequest(argv=["sleep", "0.05"]) for _ in range(200)])
    assert tasks[0].result(LIMIT).ok
    assert run(session, "true", nodes=1, tasks=1).ok
    assert not tasks[-1].done() and not long.done()
    long.cancel()


def test_a_job_that_has_to_be_on_one_node_gets_room_there(pilots: Opener) -> None:
    session = pilots("where", brokers=2)
    count = cores(session) // 2
    tasks = session.submit([JobRequest(argv=["sleep", "0.05"]) for _ in range(400)])
    assert tasks[0].result(LIMIT).ok
    job = JobRequest(argv=["true"], nodes=1, tasks=1, cores_per_task=count, constraint={"ranks": ["1"]})
    assert session.submit_one(job).result(LIMIT).ok
    assert not tasks[-1].done()


def test_a_task_among_large_jobs_of_flux_runs_with_the_first_core_that_it_gets(pilots: Opener) -> None:
    session = pilots("among")
    count = cores(session)
    large = JobRequest(argv=["sleep", "0.2"], nodes=1, tasks=1, cores_per_task=count)
    is_over = threading.Event()

    def next_one(_before: JobHandle | None = None) -> None:
        if not is_over.is_set():
            session.submit_one(large).add_done_callback(next_one)

    for _ in range(3):
        next_one()
    wait_for(lambda: free_cores(session) == 0, "they take all cores")
    task = session.submit_one(JobRequest(argv=["sleep", "0.1"]))
    assert task.result(LIMIT).ok
    is_over.set()
    assert flux(session, "jobs", "-a", "-no", "{name}").count("pilot-holder") <= 2


def test_flux_run_inside_a_task_gets_a_core(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("inside")
    if cores(session) < 2:
        pytest.skip("needs two cores: the task has one, and what it starts another")
    out = tmp_path / "out"
    filling = session.submit([JobRequest(argv=["sleep", "0.05"]) for _ in range(100)])
    # It holds one core, so that Flux has no other for what it starts but one that the pilot lets go.
    outer = session.submit_one(JobRequest(argv=["sh", "-c", f"flux run sh -c 'echo inside > {out}'"], urgency=20))
    assert outer.result(LIMIT).ok
    assert out.read_text() == "inside\n"
    assert all(handle.result(LIMIT).ok for handle in filling)


def test_an_instance_inside_a_task_has_the_cores_of_the_task(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("instance")
    counts = "flux start flux resource list -s up -no '{ncores}'"
    assert run(session, "sh", "-c", counts, stdout=str(tmp_path / "cores"), stderr=str(tmp_path / "err")).ok
    assert (tmp_path / "cores").read_text().strip() == "1", (tmp_path / "err").read_text()


def test_a_pilot_refuses_what_an_older_agent_sends(pilots: Opener) -> None:
    session = pilots("fence")
    assert run(session, "true").ok
    name = "fxp-" + hashlib.sha256(session.run_name.encode()).hexdigest()[:8]
    asks = "import flux; print(flux.Flux().rpc(%r, {'epoch': %d, 'do': [['give_back']]}, nodeid=0).get())"
    assert "a later agent has taken over" in flux(session, "python", "-c", asks % (f"{name}.call", 0))
    assert flux(session, "python", "-c", asks % (f"{name}.call", 1)) == "{}\n"


def test_cores_without_tasks_go_back(pilots: Opener) -> None:
    session = pilots("idle")
    assert run(session, "true").ok
    wait_for(lambda: free_cores(session) == cores(session), "all cores are Flux's again")
    assert run(session, "true").ok


def test_several_brokers_each_have_a_pilot_and_a_drained_one_loses_its_cores(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("several", brokers=3)
    count = cores(session)
    go = tmp_path / "go"
    blocks = ["sh", "-c", f"touch {tmp_path}/up.$$; while [ ! -e {go} ]; do sleep 0.05; done"]
    handles = session.submit([JobRequest(argv=blocks) for _ in range(count)])
    wait_for(lambda: len([*tmp_path.glob("up.*")]) == count, "all cores are used")
    assert len(pids(session, "pilot")) == 3
    ask(session, "drain", ranks="1", reason="test")
    go.touch()
    assert all(handle.result(LIMIT).ok for handle in handles)
    assert all(handle.result(LIMIT).ok for handle in session.submit([JobRequest(argv=["true"]) for _ in range(50)]))

    def on_rank_1() -> list[str]:
        lines = flux(session, "jobs", "-no", "{id} {ranks} {name}").splitlines()
        return [line for line in lines if line.split()[1:2] == ["1"]]

    wait_for(lambda: not on_rank_1(), "nothing holds a core of the drained node")
    ask(session, "drain", ranks="1", undo=True)
    assert all(handle.result(LIMIT).ok for handle in session.submit([JobRequest(argv=["true"]) for _ in range(50)]))


def test_a_node_that_is_lost_loses_its_tasks_and_no_others(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("node", brokers=2)
    count = cores(session)
    go = tmp_path / "go"
    blocks = [
        "sh",
        "-c",
        f"flux getattr rank > {tmp_path}/rank.$$; mv {tmp_path}/rank.$$ {tmp_path}/up.$$; "
        f"while [ ! -e {go} ]; do sleep 0.05; done",
    ]
    handles = session.submit([JobRequest(argv=blocks) for _ in range(count)])
    wait_for(lambda: len([*tmp_path.glob("up.*")]) == count, "all cores are used")
    there = sum(path.read_text() == "1\n" for path in tmp_path.glob("up.*"))
    assert 0 < there < count
    os.kill(int(flux(session, "exec", "-r", "1", "flux", "getattr", "broker.pid")), signal.SIGKILL)
    wait_for(lambda: sum(handle.done() for handle in handles) == there, "those of the lost node have ended")
    assert {handle.result(0).outcome for handle in handles if handle.done()} == {Outcome.LOST}
    go.touch()
    outcomes = [handle.result(LIMIT).outcome for handle in handles]
    assert outcomes.count(Outcome.COMPLETED) == count - there
    results = [handle.result(LIMIT) for handle in session.submit([JobRequest(argv=["true"]) for _ in range(20)])]
    assert all(result.ok for result in results), [result.describe() for result in results if not result.ok]


def test_a_run_ends_though_its_pilot_is_stopped(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("stopped")
    started, handle = stays(session, tmp_path / "a")
    [pilot] = pids(session, "pilot")
    os.kill(pilot, signal.SIGSTOP)
    try:
        session.close()
        assert handle.result(LIMIT).outcome is Outcome.LOST
        assert not any(map(alive, [pilot, *started]))
        wait_for(lambda: not [*of_run(session.run_name)], "all processes are gone")
    finally:
        for left in filter(alive, [pilot]):
            os.kill(left, signal.SIGKILL)


def test_nothing_is_left_behind(pilots: Opener, tmp_path: Path) -> None:
    session = pilots("left")
    started, _ = stays(session, tmp_path / "a")
    name = session.run_name
    assert pids(session, "pilot") and pids(session, "hold")
    session.close()
    assert not any(map(alive, started))
    wait_for(lambda: not [*of_run(name)], "all processes are gone")
    assert not directory_of("left").path.exists()
    assert name == run_name(RunId("test", "left"))
