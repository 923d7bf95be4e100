"""What the lead broker runs: the run's agent, or the spec's own command in one of upstream's modes.

A command is split into words as a POSIX shell would, and the words stay words. Only where it says things that nothing
but a shell understands (``$HOME``, pipes, several lines) it becomes one argument of ``sh -c``.
"""

from __future__ import annotations

import re
import shlex

from executors.render.minicluster import OF_RUN, Profile, Program
from executors.render.places import MOUNTED, places_of
from executors.spec import MiniClusterSpec

#: Where a batch's output goes if the spec names no place.
DEFAULT_LOGS = "/tmp/fluxout"

_SHELL_ONLY = re.compile(r"[$`;&|<>(){}*?~#!\n\[\]]")


def words_of(text: str) -> list[str]:
    """Words of a text by the shell's rules of quoting, without any expansion. Raises ValueError for an open quote."""
    return shlex.split(text)


def command_words(text: str) -> list[str]:
    """The argv of a command that a user wrote as one text."""
    text = text.strip()
    return ["sh", "-c", text] if _SHELL_ONLY.search(text) else words_of(text)


def hook_file(container: int, name: str) -> str:
    """Key of a user's shell text in the ConfigMap, and its file's name."""
    return f"{container}-{name}"


def initial_program(spec: MiniClusterSpec, program: Program | None, profile: Profile = OF_RUN) -> list[str]:
    """The argv of the lead's initial program; empty: the broker waits for whoever comes (interactive)."""
    if program is not None:
        return ["flux", "python", places_of(spec, agent=True).agent_archive, "supervise", *program.arguments]
    container = spec.flux_container
    at = spec.flux_index
    if spec.interactive or (profile.of_resource and not (container.command or container.commands.script)):
        return []
    if container.batch_raw:
        return _script(hook_file(at, "batch"), container.command)
    if container.batch:
        logs = container.logs or DEFAULT_LOGS
        return ["sh", MOUNTED.entry, "batch", f"{MOUNTED.files}/{hook_file(at, 'batch')}", logs, *_flags(spec)]
    if container.commands.script:
        words = _script(hook_file(at, "script"), container.commands.script)
    else:
        words = command_words(container.command)
    if not words or container.launcher:
        return words
    submit = words_of(spec.flux.submit_command) or ["flux", "run"]
    return [*submit, *_amount(spec, profile), *_flags(spec), *words]


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
    return ["-o", "cpu-affinity=off", *words_of(spec.flux.option_flags)]
