"""Short tasks through a session: Flux with pilots, Flux alone, the embedded engine; in turn, in one run."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from bench.common import Row, environment, marginal, need_flux, percentile, rss, snakemake_seconds
from bench.instant import write_instant
from executors import JobHandle, JobRequest, RunId, Session, load_config, open_session
from tests.processes import of_run
from tests.support.environment import engine_options

#: Tasks of one measurement; Flux alone takes 20 ms for each.
MANY = {"embedded": 2000, "pilot": 2000, "flux": 200}


def opened(name: str, engine: str, brokers: int = 1) -> Session:
    environ = {name: value for name, value in environment().items() if not name.startswith("FLUX_")}
    config = load_config(environ=environ, options={**engine_options(engine), "run.brokers": brokers})
    return open_session(RunId("bench", f"{name}-{engine}-{brokers}"), config, environ=environ)


def rate(session: Session, count: int) -> float:
    """Tasks per second from `submit` to the last result."""
    begin = time.monotonic()
    handles = session.submit([JobRequest(argv=["true"]) for _ in range(count)])
    results = [handle.result(600) for handle in handles]
    seconds = time.monotonic() - begin
    failed = [result.describe() for result in results if not result.ok]
    if failed:
        raise RuntimeError(f"{len(failed)} tasks did not complete, the first: {failed[0]}")
    return count / seconds


def rates(repeats: int, brokers: int = 1) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {engine: [] for engine in MANY}
    for _ in range(repeats):
        for engine, count in MANY.items():
            with opened("rate", engine, brokers if engine == "pilot" else 1) as session:
                rate(session, 50)
                found[engine].append(rate(session, count))
    return found


def rows_of(what: str, found: dict[str, list[float]], share: float) -> list[Row]:
    mid = {engine: statistics.median(values) for engine, values in found.items()}
    # Of each round, in which all met the same machine.
    times = statistics.median(ours / theirs for ours, theirs in zip(found["pilot"], found["flux"], strict=True))
    part = statistics.median(ours / theirs for ours, theirs in zip(found["pilot"], found["embedded"], strict=True))
    ends = f"{min(found['pilot']):.0f}-{max(found['pilot']):.0f} tasks/s, {len(found['pilot'])} rounds"
    return [
        Row(
            f"{what}, against Flux alone", f"{mid['pilot']:.0f} against {mid['flux']:.0f} tasks/s: {times:.1f}x",
            ">= 8x", times >= 8, [ends],
        ),
        Row(
            f"{what}, against the embedded engine",
            f"{mid['pilot']:.0f} against {mid['embedded']:.0f} tasks/s: {part:.2f}x", f">= {share}x", part >= share,
        ),
    ]  # fmt: skip


def measure_pilot(repeats: int = 3) -> list[Row]:
    need_flux()
    one = rows_of("`true` through a session, Flux with pilots, 1 broker", rates(repeats), 0.7)
    four = rows_of("`true` through a session, Flux with pilots, 4 brokers on this machine", rates(repeats, 4), 0.6)
    return [*one, *four]


def started_after(session: Session) -> float:
    """Seconds from `submit` to the moment at which the command itself says that it runs."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        out = Path(directory) / "out"
        begin = time.time()
        handle = session.submit_one(JobRequest(argv=["date", "+%s.%N"], stdout=str(out)))
        if not handle.result(60).ok:
            raise RuntimeError(handle.result(0).describe())
        return float(out.read_text()) - begin


def measure_start(repeats: int = 5, tasks: int = 50) -> list[Row]:
    need_flux()
    starts: dict[str, list[float]] = {"pilot": [], "flux": []}
    waits: list[float] = []
    for _ in range(repeats):
        for engine in starts:
            begin = time.monotonic()
            with opened("start", engine) as session:
                session.submit_one(JobRequest(argv=["true"])).result(60)
                starts[engine].append(time.monotonic() - begin)
                if engine == "pilot":
                    waits += [started_after(session) for _ in range(tasks)]
    wait = statistics.median(waits) * 1000
    with_pilot, without = statistics.median(starts["pilot"]), statistics.median(starts["flux"])
    return [
        Row(
            "submit -> the command runs, pilot idle", f"{wait:.0f} ms (p99 {percentile(waits, 0.99) * 1000:.0f} ms)",
            "<= 15 ms median", wait <= 15,
        ),
        Row(
            "a session with a pilot: opened, first result, against Flux alone",
            f"{with_pilot:.2f} s against {without:.2f} s: {with_pilot - without:.2f} s more", "", None,
        ),
    ]  # fmt: skip


def snakemake_rate(engine: str, few: int, many: int) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        words, env = _way(engine, Path(directory))
        return marginal(lambda jobs: snakemake_seconds(jobs, *words, env=env), few, many, repeats=1)


def _way(engine: str, directory: Path) -> tuple[list[str], dict[str, str]]:
    """The words and the environment of a Snakemake; what it needs besides is written into ``directory``."""
    if engine == "instant":
        words, found_by = write_instant(directory)
        return words, environment(**found_by)
    if engine == "local":
        return ["--cores", "2"], environment()
    words = ["--executor", "flux-operator", "--jobs", "1000", "--flux-operator-provisioner", "local"]
    env = environment(
        FLUX_OPERATOR_ENGINE="flux" if engine == "pilot" else engine,
        FLUX_OPERATOR_PILOT="on" if engine == "pilot" else "off",
    )
    return words, env


def measure_rules(repeats: int = 3, few: int = 20, many: int = 320) -> list[Row]:
    need_flux()
    found: dict[str, list[float]] = {"pilot": [], "embedded": [], "local": [], "instant": []}
    for _ in range(repeats):
        for engine, values in found.items():
            values.append(snakemake_rate(engine, few, many))
    mid = {engine: statistics.median(values) for engine, values in found.items()}
    rows = []
    for other, share, peer in (
        ("embedded", 0.9, "the embedded engine"),
        ("local", 2.0, "Snakemake's local executor"),
        ("instant", 0.4, "an executor that only makes the outputs"),
    ):
        part = statistics.median(ours / theirs for ours, theirs in zip(found["pilot"], found[other], strict=True))
        measured = f"{mid['pilot']:.0f} against {mid[other]:.0f} jobs/s: {part:.2f}x"
        row = Row(f"trivial shell rules with pilots, marginal rate, against {peer}", measured, f">= {share:g}x",
                  part >= share)  # fmt: skip
        rows.append(row)
    return rows


def measure_memory(tasks: int = 100_000, in_flight: int = 10_000) -> list[Row]:
    """``in_flight``: submitted and not ended, at most; each is a request and a handle of the client's."""
    need_flux()
    free = threading.Semaphore(in_flight // 1000)
    done = threading.Event()
    ended: list[float] = []
    failed: list[str] = []

    def count(handle: JobHandle) -> None:
        ended.append(time.monotonic())
        if not handle.result(0).ok:
            failed.append(handle.result(0).describe())
        if len(ended) % 1000 == 0:
            free.release()
        if len(ended) == tasks:
            done.set()

    with opened("memory", "pilot") as session:
        from executors.provision.local.rundir import base_directory

        rate(session, 50)
        pids: dict[str, int] = {word: process.pid for process, argv in of_run(session.run_name)
                for word in ("serve", "pilot") if word in argv[:4]}  # fmt: skip
        pids["broker"] = next(process.pid for process, argv in of_run(session.run_name) if "flux-broker" in argv[0])
        pids["client"] = os.getpid()
        before = {name: rss(pid) for name, pid in pids.items()}
        begin = time.monotonic()
        for start in range(0, tasks, 1000):
            free.acquire()
            requests = [JobRequest(argv=["true"], key=f"m-{start + index}") for index in range(1000)]
            for handle in session.submit(requests):
                handle.add_done_callback(count)
        done.wait()
        seconds = time.monotonic() - begin
        growth = {name: (rss(pid) - before[name]) / 1e6 for name, pid in pids.items()}
        directory = base_directory(dict(os.environ)) / session.run_name
        on_disk = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6
    if failed:
        raise RuntimeError(f"{len(failed)} tasks did not complete, the first: {failed[0]}")
    first, last = ended[999] - begin, ended[-1] - ended[-1001]
    return [
        Row(
            f"{tasks:,} tasks of pilots in one session: growth of broker, agent, client, pilot; state directory",
            f"{growth['broker']:.0f}, {growth['serve']:.0f}, {growth['client']:.0f}, {growth['pilot']:.0f} MB; "
            f"{on_disk:.0f} MB", "<= 150, 100, 60 MB; <= 100 MB",
            growth["broker"] <= 150 and growth["serve"] <= 100 and growth["client"] <= 60 and on_disk <= 100,
            [f"{tasks / seconds:.0f} tasks/s"],
        ),
        Row(
            f"{tasks:,} tasks of pilots: last thousand against first",
            f"{last:.2f} s / {first:.2f} s = {last / first:.2f}x", "<= 1.2x", last / first <= 1.2,
        ),
    ]  # fmt: skip
