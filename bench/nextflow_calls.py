"""Started by `bench.nextflow` in the place of Nextflow; prints one line of JSON.

``calls N``: seconds of N whole processes each of Python's own start, our `flux submit` and Flux's own, alternating,
each when the job before it has ended, and of the session's answer alone.
``tasks N``: N tasks by the session's socket: growth in bytes, rate in tasks per second, seconds of some `flux jobs`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import rss
from executors.flux_command import client
from executors.flux_command.environment import SESSION
from executors.names import PLACE_VARIABLE

WRAPPER = "#!/bin/bash\nprintf 0 > .exitcode\n"
LIST = ["jobs", "--suppress-header", "--format={id.f58} {status_abbrev}", "--since=-15m"]
#: Seconds in which a job of `true` ends.
PAUSE = 0.4
#: Of `flux jobs`.
REPEATS = 15


def submit_words(work: str) -> list[str]:
    return [
        "submit", f"--setattr=cwd={work}", '--job-name="fxo nf-ONE (1)"', f"--output={work}/.command.log",
        "/bin/bash", ".command.run",
    ]  # fmt: skip


def work_directory(root: Path, number: int) -> str:
    work = root / f"{number % 256:02x}" / str(number)
    work.mkdir(parents=True)
    (work / ".command.run").write_text(WRAPPER)
    return str(work)


def seconds_of(argv: list[str], cwd: str, pause: float = 0.0, **environ: str) -> float:
    time.sleep(pause)
    env = {**os.environ, **environ}
    begin = time.perf_counter()
    subprocess.run(
        argv, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )  # fmt: skip
    return time.perf_counter() - begin


def calls(root: Path, count: int) -> dict[str, list[float]]:
    ours = f"{os.environ[SESSION]}/bin/flux"
    directories = os.environ["PATH"].split(":")[1:]
    own = next((f"{one}/flux" for one in directories if os.access(f"{one}/flux", os.X_OK)), "")
    made = (f"local://{path}" for path in Path(os.environ[PLACE_VARIABLE]).glob("fluxop/*/local-0"))
    uri = os.environ.get("FLUX_URI") or next(made, "")
    python = os.path.realpath(sys.executable)
    found: dict[str, list[float]] = {"python": [], "ours": [], "flux": [], "answer": []}
    for number in range(count):
        work = work_directory(root, number)
        found["python"].append(seconds_of([python, "-IS", "-c", "pass"], work, PAUSE))
        found["ours"].append(seconds_of([ours, *submit_words(work)], work, PAUSE))
        time.sleep(PAUSE)
        begin = time.perf_counter()
        words = submit_words(work_directory(root, count + number))
        client.ask(os.environ[SESSION], [str(os.getpid()), words[1].partition("cwd=")[2], *words], 60.0)
        found["answer"].append(time.perf_counter() - begin)
        if uri:
            found["flux"].append(
                seconds_of([own, "submit", f"--output={work}/log", "/bin/true"], work, PAUSE, FLUX_URI=uri)
            )
    return found


def tasks(root: Path, count: int) -> dict[str, object]:
    directory = os.environ[SESSION]
    session = _session()
    before = 0
    begin = time.monotonic()
    for number in range(count):
        work = work_directory(root, number)
        reply = client.ask(directory, [str(os.getpid()), work, *submit_words(work)], 60.0)
        assert reply.startswith(b"0f"), reply
        if number == count // 100:  # its modules are there by now
            before = rss(session)
    while b" R\n" in (states := client.ask(directory, [str(os.getpid()), "/", *LIST], 60.0)) or b" S\n" in states:
        time.sleep(0.2)
    rate = count / (time.monotonic() - begin)
    assert states.count(b" C\n") == count
    jobs = [seconds_of([f"{directory}/bin/flux", *LIST], "/") for _ in range(REPEATS)]
    return {"growth": rss(session) - before, "rate": rate, "jobs": jobs}


def _session() -> int:
    """The session's pid: what else our parent has started."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"serve" in argv and b"executors.flux_command" in argv and parent == os.getppid():
            return int(entry.name)
    raise RuntimeError("the session's process is not to be found")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        measure = calls if sys.argv[1] == "calls" else tasks
        print(json.dumps(measure(Path(directory), int(sys.argv[2]))))
