"""The environment of Nextflow, and that of its tasks. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

#: In Nextflow's environment: the session's directory.
SESSION = "FLUXOP_NEXTFLOW"
#: In a task's environment: the id of the run. A process that has it is inside a job.
TASK = "FLUXOP_NEXTFLOW_TASK"

#: The JVM's own settings and Nextflow's launcher's: a task's own Java, or a Nextflow in a task, is another one.
_OF_THE_JVM = ("NXF_OPTS", "NXF_JVM_ARGS", "NXF_JAVA_HOME", "NXF_CLI_OPTS", "NXF_CLI_LAUNCHER", "_JAVA_OPTIONS")
#: Defaults of Nextflow's scope `executor`, the two that it takes so. What any configuration says counts more than these
#: variables. They reach a Nextflow that a script starts by its path, too, which our configuration does not.
_DEFAULTS = {
    # How many tasks Nextflow has in the instance at once. Its own default, 100, leaves an instance of more cores idle.
    "NXF_EXECUTOR_QUEUESIZE": "1000",
    "NXF_EXECUTOR_POLLINTERVAL": "1 sec",  # its own: 5 s
}
#: What is changed in Nextflow's environment.
CHANGED = (SESSION, "PATH", "NXF_EXECUTOR", *_DEFAULTS)
#: What tasks in pods have of the launching environment.
ALLOWED = ("NXF_DEBUG", "NXF_*SECRETS*", "NXF_SCRATCH", "NXF_TASK_*")


def without_directories(path: str, directories: Iterable[str]) -> str:
    """A PATH without some of its directories."""
    dropped = set(directories)
    return ":".join(one for one in path.split(":") if one not in dropped)


def ours(environ: Mapping[str, str]) -> list[str]:
    """Directories on PATH that hold our command, of the session that an environment names."""
    directory = environ.get(SESSION)
    return [f"{directory}/bin"] if directory else []


def for_session(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of the session process, from that of the process that starts it."""
    kept = {name: value for name, value in environ.items() if name not in (SESSION, TASK)}
    kept["PATH"] = without_directories(kept.get("PATH", ""), ours(environ))
    return kept


def for_nextflow(environ: Mapping[str, str], directory: str) -> dict[str, str]:
    """``directory`` is the session's; its ``bin`` comes first. `CHANGED` are the names of what differs."""
    path = without_directories(environ.get("PATH", ""), ours(environ))
    said = {name: environ[name] for name in _DEFAULTS if environ.get(name)}
    changed = {SESSION: directory, "PATH": f"{directory}/bin:{path}", "NXF_EXECUTOR": "flux"}
    return {**environ, **changed, **_DEFAULTS, **said}


def for_tasks(environ: Mapping[str, str], run: str, *, remote: bool) -> dict[str, str | None]:
    """What a task's environment has other than what it inherits; None removes.

    On this machine tasks inherit ``environ``; elsewhere (``remote``) they have of it only what is `ALLOWED`.
    """
    if remote:
        changed: dict[str, str | None] = {
            name: value for name, value in environ.items() if any(fnmatch.fnmatchcase(name, one) for one in ALLOWED)
        }
    else:
        changed = {name: None for name in environ if name.startswith("FLUX_") or name in _OF_THE_JVM}
    changed[TASK] = run
    return changed
