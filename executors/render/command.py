"""What the lead broker runs: the run's agent, or the spec's own command in one of upstream's modes.

A command is split into words as a POSIX shell would, and the words stay words. Only where it says things that nothing
but a shell understands (``$HOME``, pipes, several lines) it becomes one argument of ``sh -c``.
"""

from __future__ import annotations

import json
import re
import shlex

from executors.job import Defaults, Environments, JobRequest, prepare_submission
from executors.render.minicluster import OF_RUN, Profile, Program
from executors.render.places import MOUNTED, pod_paths
from executors.spec import MiniClusterSpec

#: Where a batch's output goes if the spec names no place.
DEFAULT_LOGS = "/tmp/fluxout"

#: Bytes of a command. Linux takes 128 KiB as one variable, and each byte may become six in a jobspec.
_LARGEST = 20 * 1024

_SHELL_ONLY = re.compile(r"[$`;&|<>(){}*?~#!\n\[\]]")


def split_words(text: str) -> list[str]:
    """Words of a text by the shell's rules of quoting, without any expansion. Raises ValueError for an open quote."""
    return shlex.split(text)


def command_words(text: str) -> list[str]:
    """The argv of a command that a user wrote as one text."""
    text = text.strip()
    return ["sh", "-c", text] if _SHELL_ONLY.search(text) else split_words(text)


def hook_file(container: int, name: str) -> str:
    """Key of a user's shell text in the ConfigMap, and its file's name."""
    return f"{container}-{name}"


def initial_program(spec: MiniClusterSpec, program: Program | None, profile: Profile = OF_RUN) -> list[str]:
    """The argv of the lead's initial program; empty: the broker waits for its users (interactive)."""
    if program is not None:
        return ["flux", "python", pod_paths(spec, agent=True).agent_archive, "supervise", *program.arguments]
    container = spec.flux_container
    at = spec.flux_index
    if spec.interactive or (profile.of_resource and not (container.command or container.commands.script)):
        return []
    if container.batch_raw:
        return _script(hook_file(at, "batch"), container.command)
    if container.batch:
        logs = container.logs or DEFAULT_LOGS
        return ["sh", MOUNTED.entry, "batch", f"{MOUNTED.files}/{hook_file(at, 'batch')}", logs, *_flags(spec)]
    words = _words(spec)
    if not words or container.launcher:
        return words
    if profile.of_resource and is_plain_job(spec):
        entry = pod_paths(spec, agent=False, resource=True).entry
        # A job of all pods waits for them in Flux's queue anyway.
        return ["/bin/sh", entry, "job", *(["now", str(spec.size)] if spec.tasks >= spec.size else ["held"])]
    submit = split_words(spec.flux.submit_command) or ["flux", "run"]
    return [*submit, *_amount(spec, profile), *_flags(spec), *words]


def is_plain_job(spec: MiniClusterSpec) -> bool:
    """Whether a resource's command is a job of which everything is known here, so that it is submitted, and held,
    while the brokers still come: `flux run` would be started when they are there, and takes a third of a second."""
    container = spec.flux_container
    job = (container.command or container.commands.script) and not (container.launcher or container.batch)
    known = spec.tasks and not (spec.flux.submit_command or spec.flux.option_flags or spec.archive_path)
    small = len(container.command.encode()) <= _LARGEST
    return bool(job and known and small) and not spec.interactive and not container.batch_raw


def jobspec(spec: MiniClusterSpec) -> str:
    """What `flux run` would submit for a plain job, but for the pod's environment, directory and limits."""
    words = _words(spec)
    nodes = spec.size if spec.tasks >= spec.size else None
    request = JobRequest(argv=words, nodes=nodes, tasks=spec.tasks, cwd="/")
    item = prepare_submission(request, Defaults(shell_options={"cpu-affinity": "off"}), Environments(None), "/")
    return json.dumps(item.jobspec, separators=(",", ":"))


def _words(spec: MiniClusterSpec) -> list[str]:
    container = spec.flux_container
    if container.commands.script:
        return _script(hook_file(spec.flux_index, "script"), container.commands.script)
    return command_words(container.command)


def _amount(spec: MiniClusterSpec, profile: Profile) -> list[str]:
    if not profile.of_resource:
        return ["-N", str(spec.size), "-n", str(max(spec.tasks, spec.size))]
    nodes = ["-N", str(spec.size)] if spec.tasks >= spec.size or not spec.tasks else []
    return [*nodes, *(["-n", str(spec.tasks)] if spec.tasks else [])]


def _script(key: str, text: str) -> list[str]:
    file = f"{MOUNTED.files}/{key}"
    return [file] if text.startswith("#!") else ["sh", file]


def _flags(spec: MiniClusterSpec) -> list[str]:
    # Ranks of several pods on one node would all bind their tasks to the node's first cores.
    return ["-o", "cpu-affinity=off", *split_words(spec.flux.option_flags)]
