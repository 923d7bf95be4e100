"""Stands in for Nextflow: submits, polls and cancels as its grid executor does, with the command lines of its executor
``flux``, byte for byte. Started as a program, so that it can be killed:

    python -m tests.nextflow.standin PIPELINE.json ROWS.json WORK

What is like Nextflow: `flux` is found by PATH; its stdin is a pipe that is never closed, both output streams are one;
one submission at a time, in the task's directory; the status by ``sh -c``, at most every `STAT`; a result is what the
file says, and an empty one is waited for; a job that ended without a file fails after `READ_LIMIT`, without a status;
the ids of what runs are cancelled at a failure and at SIGINT or SIGTERM. Intervals are shorter. The wrapper is one of
our own with what matters of Nextflow's: EXIT writes a status that nobody may have set, TERM ends the children.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.nextflow.pipelines import RETRIED

POLL = 0.1
STAT = 0.5
READ_LIMIT = 8.0
BATCH = 100

WRAPPER = r"""#!/bin/bash
set -u
status=
child=
on_exit() {
    printf '%s' "${status:-0}" > .exitcode
    exit "${status:-0}"
}
end_tree() {
    local one
    for one in $(ps -o pid= --ppid "$1"); do end_tree "$one"; done
    [ "$1" = $$ ] || kill "$1" 2>/dev/null
}
on_term() { [ -z "$child" ] || end_tree "$child"; }
trap on_exit EXIT
trap on_term TERM INT USR2
trap '' USR1
touch .command.begin
(set -o pipefail; (/bin/bash -ue .command.sh | tee .command.out) 3>&1 1>&2 2>&3 | tee .command.err) 3>&1 1>&2 2>&3 &
child=$!
wait $child || status=$?
"""


@dataclass
class Task:
    process: dict[str, Any]
    index: int
    attempt: int = 1
    id: str = ""
    workdir: Path = field(default_factory=Path)
    began: float = 0.0
    #: When it was first seen to have ended without a file; the same for an empty file.
    silent: float = 0.0
    running: bool = False

    @property
    def name(self) -> str:
        tag = self.process["tag"]
        if tag is None and self.process["count"] > 1:
            tag = str(self.index)
        name: str = self.process["name"]
        return f"{name} ({tag})" if tag is not None else name


class SubmitError(Exception):
    pass


class Standin:
    def __init__(self, processes: list[dict[str, Any]], work: Path, settings: bool = True) -> None:
        """``settings``: with the job names of our configuration; else with Nextflow's own."""
        self.waiting = [Task(one, index + 1) for one in processes for index in range(one["count"])]
        self.active: list[Task] = []
        self.rows: list[dict[str, Any]] = []
        self.work = work
        self.settings = settings
        self.failed = False
        self._states: dict[str, str] | None = None
        self._asked = 0.0

    def run(self) -> bool:
        """Whether every task completed."""
        while self.waiting or self.active:
            for task in [task for task in self.waiting if self._may(task)]:
                self.waiting.remove(task)
                self._submit(task)
                self._look()
            self._look()
            time.sleep(POLL)
        return not self.failed

    def cancel(self) -> None:
        ids = [task.id for task in self.active]
        for begin in range(0, len(ids), BATCH):
            self._call(["flux", "job", "cancel", *ids[begin : begin + BATCH]], os.getcwd(), 10.0)
        for task in self.active:
            self._row(task, "ABORTED", None)
        self.active.clear()

    def _may(self, task: Task) -> bool:
        forks = task.process["max_forks"]
        same = sum(one.process is task.process for one in self.active)
        return not self.failed and (forks is None or same < forks)

    # -- submit

    def _submit(self, task: Task) -> None:
        digits = secrets.token_hex(16)
        task.workdir = self.work / digits[:2] / digits[2:]
        task.workdir.mkdir(parents=True)
        head = f"index={task.index}; attempt={task.attempt}\n"
        (task.workdir / ".command.sh").write_text(f"#!/bin/bash -ue\n{head}{task.process['script']}\n")
        (task.workdir / ".command.run").write_text(WRAPPER)
        code, out = self._call(submit_command(task, self.settings), str(task.workdir), None)
        if code:
            self._row(task, "FAILED", code, text=out)
            self._fail()
            return
        if not out.startswith("f") or out.count("\n") != 1 or not out.endswith("\n"):
            raise SubmitError(f"{out!r} is not one id")
        task.id = out.strip()
        self.active.append(task)

    def _call(self, argv: list[str], cwd: str, limit: float | None) -> tuple[int, str]:
        # stdin is open until we end.
        process = subprocess.Popen(
            argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            out = process.stdout.read()
            return process.wait(limit), out.decode(errors="replace")
        finally:
            process.stdin.close()

    # -- poll

    def _look(self) -> None:
        for task in list(self.active):
            if task not in self.active:  # cancelled, since another one has failed
                continue
            if not task.running and self._started(task):
                task.running = True
                task.began = time.monotonic()
            if task.running:
                known, status = self._result(task)
                if known:
                    self.active.remove(task)
                    self._completed(task, status)

    def _started(self, task: Task) -> bool:
        if (task.workdir / ".command.begin").exists():
            return True
        states = self._queue()
        # Whatever is listed and does not wait.
        return states is not None and states.get(task.id, "S") != "S"

    def _result(self, task: Task) -> tuple[bool, int | None]:
        try:
            text = (task.workdir / ".exitcode").read_text().strip()
        except FileNotFoundError:
            states = self._queue()
            if states is None or states.get(task.id) == "R":
                task.silent = 0.0
                return False, None
            return self._given_up(task), None
        if not text:
            return self._given_up(task), -1
        return True, int(text)

    def _given_up(self, task: Task) -> bool:
        task.silent = task.silent or time.monotonic()
        return time.monotonic() - task.silent > READ_LIMIT

    def _queue(self) -> dict[str, str] | None:
        """None where it cannot be told: then everything is taken for alive."""
        if time.monotonic() - self._asked > STAT:
            self._asked = time.monotonic()
            command = 'flux jobs --suppress-header --format="{id.f58} {status_abbrev}" --since="-15m" --user=' + "root"
            code, out = self._call(["sh", "-c", command], os.getcwd(), 60.0)
            if code:
                self._states = None
            else:
                self._states = dict(line.split() for line in out.splitlines())
        return self._states

    # -- ends

    def _completed(self, task: Task, status: int | None) -> None:
        if status == 0:
            self._row(task, "COMPLETED", 0)
            return
        self._row(task, "FAILED", status)
        if status in RETRIED and task.attempt <= task.process["retries"]:
            self.waiting.append(Task(task.process, task.index, task.attempt + 1))
        elif task.process["strategy"] != "ignore":
            self._fail()

    def _fail(self) -> None:
        self.failed = True
        self.waiting.clear()
        self.cancel()

    def _row(self, task: Task, status: str, code: int | None, text: str = "") -> None:
        if text:
            print(text, end="", flush=True)
        self.rows.append(
            {
                "name": task.name, "status": status, "exit": code, "attempt": task.attempt,
                "native_id": task.id, "workdir": str(task.workdir),
            }
        )  # fmt: skip


def submit_command(task: Task, settings: bool) -> list[str]:
    """As Nextflow makes it of a process; what has a blank is quoted, and the quotes are part of the word."""
    process = task.process
    name = "nf-" + "".join("_" if char in " /:@*?\n\t\r" else char for char in task.name)
    if settings:
        name = carried(process) + f" nf-{task.name}"
    argv = ["flux", "submit", f"--setattr=cwd={_quoted(task.workdir)}", f'--job-name="{name[:256]}"']
    argv.append(f"--output={_quoted(task.workdir / '.command.log')}")
    if process["cpus"] > 1:
        argv.append(f"--cores-per-task={process['cpus']}")
    if process["time"] is not None:
        argv.append(f"--time-limit={process['time'] // 60:02d}")
    if process["queue"]:
        argv.append(f"--queue={process['queue']}")
    argv += [word for word in (process["cluster_options"] or "").split(" ") if word]
    return [*argv, "/bin/bash", ".command.run"]


def carried(process: dict[str, Any]) -> str:
    text = "fxo"
    for letter, key in (("t", "time"), ("m", "memory"), ("g", "accelerator")):
        if process[key] is not None:
            text += f":{letter}{process[key]}"
    return text + (":i" if process["strategy"] == "ignore" else "")


def _quoted(path: Path) -> str:
    text = str(path)
    escaped = "".join(f"\\{char}" if char in " '\"()&|;<>`" else char for char in text)
    return text if escaped == text else f'"{escaped}"'


def main() -> int:
    pipeline, rows, work = map(Path, sys.argv[1:4])
    standin = Standin(json.loads(pipeline.read_text()), work.absolute(), settings="--plain" not in sys.argv)

    def end(_signum: int, _frame: object) -> None:
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, end)
    try:
        good = standin.run()
    except KeyboardInterrupt:
        standin.cancel()
        good = False
    rows.write_text(json.dumps(standin.rows))
    return 0 if good else 1


if __name__ == "__main__":
    print(shlex.join(sys.argv[1:]))
    sys.exit(main())
