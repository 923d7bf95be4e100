"""A pipeline as the tests mean it, to be run by the stand-in or written down for a real Nextflow."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

#: nf-core's rule for what is worth another try.
RETRIED = range(130, 146)


@dataclass(frozen=True)
class Process:
    """One process of ``count`` tasks; ``script`` is bash, in which ``$attempt`` and ``$index`` (from 1) are set."""

    name: str
    script: str
    count: int = 1
    tag: str | None = None
    cpus: int = 1
    #: MB of 2^20 bytes.
    memory: int | None = None
    #: Seconds.
    time: int | None = None
    accelerator: int | None = None
    queue: str | None = None
    cluster_options: str | None = None
    #: What follows a failure outside of `RETRIED`, or after ``retries``: terminate or ignore.
    strategy: str = "terminate"
    retries: int = 1
    max_forks: int | None = None


@dataclass(frozen=True)
class Row:
    """What became of one try of a task, as Nextflow's trace tells it. ``exit`` is None where it does not know."""

    name: str
    status: str
    exit: int | None
    attempt: int
    native_id: str
    workdir: Path

    def text(self, name: str) -> str:
        """A file in the work directory; "" where there is none."""
        path = self.workdir / name
        return path.read_text(errors="replace") if path.exists() else ""


def as_json(processes: list[Process]) -> str:
    return json.dumps([dataclasses.asdict(one) for one in processes])


def as_groovy(processes: list[Process]) -> str:
    """The same as a pipeline for Nextflow."""
    return "".join(map(_process, processes)) + f"workflow {{\n{''.join(map(_call, processes))}}}\n"


def _process(one: Process) -> str:
    directives = [f"cpus {one.cpus}", f"maxRetries {max(1, one.retries)}"]
    if one.tag is not None:
        directives.append(f"tag {_quoted(one.tag)}")
    if one.memory is not None:
        directives.append(f"memory '{one.memory} MB'")
    if one.time is not None:
        directives.append(f"time '{one.time} sec'")
    if one.accelerator is not None:
        directives.append(f"accelerator {one.accelerator}")
    if one.queue is not None:
        directives.append(f"queue {_quoted(one.queue)}")
    if one.cluster_options is not None:
        directives.append(f"clusterOptions {_quoted(one.cluster_options)}")
    if one.max_forks is not None:
        directives.append(f"maxForks {one.max_forks}")
    worth = f"task.exitStatus in {RETRIED.start}..{RETRIED.stop - 1} && task.attempt <= {one.retries}"
    directives.append(f"errorStrategy {{ {worth} ? 'retry' : '{one.strategy}' }}")
    body = "".join(f"    {line}\n" for line in directives)
    return (
        f"process {one.name} {{\n{body}    input:\n    val index\n    script:\n"
        f'    """\n    index=${{index}}; attempt=${{task.attempt}}\n'
        + "".join(f"    {_script(line)}\n" for line in one.script.splitlines())
        + '    """\n}\n'
    )


def _script(line: str) -> str:
    return line.replace("\\", "\\\\").replace("$", "\\$")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _call(one: Process) -> str:
    return f"    {one.name}(Channel.of(1..{one.count}))\n"
