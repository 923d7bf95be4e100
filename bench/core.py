"""The core without Snakemake: ingest, memory of many jobs, cost of an import."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.common import ROOT, Row, environment, need_flux, rss
from executors import JobHandle, JobRequest, RunId, Session, load_config, open_session
from tests.processes import of_run

INGEST = 2000
MOCK = {"system.exec.test.run_duration": "0.001s"}

#: Native ingest: the same jobspecs by Flux's bindings, held, so that nothing runs; all ids awaited.
NATIVE = """
import json, sys, time, flux, flux.job
handle, (spec, count) = flux.Flux(), json.load(open(sys.argv[1]))
text = json.dumps(spec)
begin = time.monotonic()
ids = []
for _ in range(count):
    flux.job.submit_async(handle, text, urgency=0).then(lambda future: ids.append(future.get_id()))
handle.reactor_run()
print(count / (time.monotonic() - begin))
for job in ids:
    flux.job.cancel_async(handle, job)
"""


def held(count: int) -> list[JobRequest]:
    return [JobRequest(argv=["true"], urgency=0, key=f"{os.urandom(6).hex()}-{index}") for index in range(count)]


def session_ingest(session: Session, count: int) -> float:
    """Jobs per second from `submit` until all ids are known."""
    known = threading.Semaphore(0)
    requests = held(count)
    begin = time.monotonic()
    handles = session.submit(requests)
    for handle in handles:
        handle.add_submit_callback(lambda _handle: known.release())
    for _ in handles:
        known.acquire()
    rate = count / (time.monotonic() - begin)
    session.cancel(handles)
    for handle in handles:
        handle.result(120)
    return rate


def inside_ingest(repeats: int) -> dict[str, float]:
    """Alternating, in one instance, so that both meet the same broker. FLUX_URI names it."""
    ours, native = [], []
    with open_session(RunId("bench", "ingest"), load_config(), max_in_flight=INGEST) as session:
        from executors.job import Defaults, Environments, prepare_submission

        spec = prepare_submission(held(1)[0], Defaults(), Environments(os.environ), "/").jobspec
        spec["attributes"]["user"] = {"fxo": {"run": "x" * 20, "key": "x" * 20, "digest": "x" * 24, "name": ""}}
        path = Path(f"/tmp/bench-native-{os.getpid()}.json")
        path.write_text(json.dumps([spec, INGEST]))
        for _ in range(repeats):
            ours.append(session_ingest(session, INGEST))
            argv = ["flux", "python", "-c", NATIVE, str(path)]
            native.append(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
            time.sleep(1)  # its cancelled jobs are still being tidied up
        path.unlink()
    return {"ours": statistics.median(ours), "native": statistics.median(native)}


def measure_ingest(repeats: int = 3) -> list[Row]:
    flux = need_flux()
    argv = [flux, "start", sys.executable, "-m", "bench.core", "ingest", str(repeats)]
    done = subprocess.run(argv, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    rates = json.loads(done.stdout.splitlines()[-1])
    share = rates["ours"] / rates["native"]
    return [
        Row(
            "session submit, Flux engine, keys kept, against native ingest by the bindings",
            f"{rates['ours']:.0f} against {rates['native']:.0f} jobs/s: {share:.0%}", ">= 80 %", share >= 0.8,
        )
    ]  # fmt: skip


def processes(run: str) -> dict[str, int]:
    """Pids of a run's agent and lead broker."""
    found = {}
    for process, argv in of_run(run):
        if "serve" in argv:
            found["agent"] = process.pid
        elif any("broker" in word for word in argv[:2]):
            found["broker"] = process.pid
    return found


def disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def measure_memory(jobs: int = 20_000) -> list[Row]:
    need_flux()
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLUX_")}
    config = load_config(environ=environ, options={"run.provisioner": "local", "run.engine": "flux"})
    ended: list[float] = []
    done = threading.Event()
    failed: list[str] = []

    def count(handle: JobHandle) -> None:
        ended.append(time.monotonic())
        result = handle.result(0)
        if not result.ok:
            failed.append(result.describe())
        if len(ended) == jobs:
            done.set()

    with open_session(RunId("bench", f"memory-{jobs}"), config, environ=environ) as session:
        from executors.provision.local.rundir import base_directory

        pids = processes(session.run_name)
        before = {name: rss(pid) for name, pid in {**pids, "client": os.getpid()}.items()}
        begin = time.monotonic()
        for start in range(0, jobs, 1000):
            requests = [
                JobRequest(argv=["true"], key=f"m-{start + index}", env={}, attributes=MOCK) for index in range(1000)
            ]
            for handle in session.submit(requests):
                handle.add_done_callback(count)
        done.wait()
        seconds = time.monotonic() - begin
        after = {name: rss(pid) for name, pid in {**pids, "client": os.getpid()}.items()}
        on_disk = disk(base_directory(environ) / session.run_name)
    if failed:
        raise RuntimeError(f"{len(failed)} jobs did not complete, the first: {failed[0]}")
    first, last = ended[999] - begin, ended[-1] - ended[-1001]
    growth = {name: (after[name] - before[name]) / 1e6 for name in after}
    ratio = last / first
    agent = after.get("agent", 0) / 1e6
    note = f"{jobs / seconds:.0f} jobs/s; state directory {on_disk / 1e6:.0f} MB"
    return [
        Row(
            f"{jobs:,} jobs in one session under Flux, mock execution: growth of the client",
            f"{growth['client']:.0f} MB", "<= 100 MB", growth["client"] <= 100, [note],
        ),
        Row(
            "the same: the agent",
            f"{agent:.0f} MB in all, {growth.get('agent', 0):.0f} MB of growth", "<= 200 MB", agent <= 200,
        ),
        Row(
            "the same: last thousand against first",
            f"{last:.2f} s / {first:.2f} s = {ratio:.2f}x", "<= 1.2x", ratio <= 1.2,
        ),
        Row(
            "the same: lead broker",
            f"{growth.get('broker', 0):.0f} MB of growth, to {after.get('broker', 0) / 1e6:.0f} MB",
            "explained below", None,
        ),
    ]  # fmt: skip


def measure_import(repeats: int = 25) -> list[Row]:
    env = environment()
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode; the first import makes it here

    def once(code: str) -> float:
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        return time.monotonic() - begin

    once("import executors")
    pairs = [(once("pass"), once("import executors")) for _ in range(repeats)]
    cost = statistics.median(after for _, after in pairs) - statistics.median(before for before, _ in pairs)
    counting = "import sys; old = set(sys.modules); import executors; print(len(set(sys.modules) - old))"
    modules = subprocess.run([sys.executable, "-c", counting], env=env, capture_output=True, text=True, check=True)
    return [
        Row("import of `executors` beyond Python's own start", f"{cost * 1000:.0f} ms", "<= 60 ms", cost <= 0.06),
        # The same on any machine, however busy: it tells a change in this code from one of the machine's.
        Row("the same: modules, Python's own among them", modules.stdout.strip(), "explained below", None),
    ]


if __name__ == "__main__":
    print(json.dumps(inside_ingest(int(sys.argv[2]))))
