"""Which tasks a pilot takes. Pure."""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

#: Attributes and shell options that a pilot does what Flux does with. Any other one is Flux's.
_SYSTEM = frozenset(["cwd", "environment", "duration", "job", "shell"])
_OPTIONS = frozenset(["output", "input", "cpu-affinity"])
_NO_INPUT = {"stdin": {"type": "file", "path": "/dev/null"}}


def why_flux(jobspec: Dict[str, Any], urgency: int, cores: int) -> Optional[str]:
    """Why Flux itself is to run this job, and not a pilot; None: a pilot can. ``cores``: of the largest node."""
    try:
        return _why(jobspec, urgency, cores)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return "its jobspec is not of the usual form"  # what is wrong with it is Flux's to say


def _why(jobspec: Dict[str, Any], urgency: int, cores: int) -> Optional[str]:
    attributes = jobspec["attributes"]
    system = attributes["system"]
    shell = system.get("shell", {})
    options = shell.get("options", {})
    [task] = jobspec["tasks"]
    if jobspec["version"] != 1:
        return "the version of its jobspec"
    if urgency == 0:
        return "it is held"
    for names, known in ((attributes, {"system"}), (system, _SYSTEM), (shell, {"options"}), (options, _OPTIONS)):
        foreign = sorted(set(names) - known)
        if foreign:
            return "attribute or shell option %s" % foreign[0]
    if task.get("count") != {"per_slot": 1}:
        return "its number of tasks"
    wanted = cores_of(jobspec)
    if wanted is None:
        return "nodes, several tasks, or something else than cores"
    if wanted > cores:
        return "it needs more cores than a node has"
    if os.path.basename(str(task["command"][0])) == "flux":
        return "it may start an instance of Flux"
    return _why_of_streams(options)


def _why_of_streams(options: Dict[str, Any]) -> Optional[str]:
    if options.get("input") not in (None, _NO_INPUT):
        return "it reads its input from a file"
    if options.get("cpu-affinity", "off") != "off":
        return "its CPU affinity"
    output = options.get("output") or {}
    for name, stream in output.items():
        if name == "mode":
            continue
        if name not in ("stdout", "stderr") or set(stream) != {"type", "path"} or stream["type"] != "file":
            return "its output is not just a file"
        if "{{" in stream["path"]:
            return "the path of its output is a template"
    return None


def cores_of(jobspec: Dict[str, Any]) -> Optional[int]:
    """The cores of a job that is one slot of cores; None for any other."""
    [slot] = jobspec["resources"]
    if set(slot) - {"label"} != {"type", "count", "with"} or slot["type"] != "slot" or slot["count"] != 1:
        return None
    if len(slot["with"]) != 1:
        return None
    [core] = slot["with"]
    if set(core) != {"type", "count"} or core["type"] != "core" or type(core["count"]) is not int or core["count"] < 1:
        return None
    return int(core["count"])
