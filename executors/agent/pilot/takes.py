"""Which tasks a pilot takes. Pure."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, Optional

from .shape import Shape

#: Attributes and shell options that a pilot does what Flux does with. Any other one is Flux's.
_SYSTEM = frozenset(["cwd", "environment", "duration", "job", "shell"])
_OPTIONS = frozenset(["output", "input", "cpu-affinity"])
_NO_INPUT = {"stdin": {"type": "file", "path": "/dev/null"}}


def why_flux(jobspec: Dict[str, Any], urgency: int, nodes: Iterable[Shape], gives_gpus: bool) -> Optional[str]:
    """Why Flux itself is to run this job, and not a pilot; None: a pilot can.

    ``nodes``: what each has; ``gives_gpus``: whether Flux's scheduler is one that does.
    """
    try:
        return _why(jobspec, urgency, nodes, gives_gpus)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return "its jobspec is not of the usual form"  # what is wrong with it is Flux's to say


def _why(jobspec: Dict[str, Any], urgency: int, nodes: Iterable[Shape], gives_gpus: bool) -> Optional[str]:
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
    wanted = slot_of(jobspec)
    if wanted is None:
        return "nodes, several tasks, or something else than cores and GPUs"
    if wanted.gpus and not gives_gpus:
        return "Flux has given no job here a GPU yet"
    if not any(node.holds(wanted) for node in nodes):
        return "it needs more cores or GPUs than a node has"
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


def slot_of(jobspec: Dict[str, Any]) -> Optional[Shape]:
    """The cores and GPUs of a job that is one slot of these; None for any other."""
    [slot] = jobspec["resources"]
    if set(slot) - {"label"} != {"type", "count", "with"} or slot["type"] != "slot" or slot["count"] != 1:
        return None
    counts: Dict[str, int] = {}
    for vertex in slot["with"]:
        kind = vertex.get("type")
        if set(vertex) != {"type", "count"} or kind not in ("core", "gpu") or kind in counts:
            return None
        if type(vertex["count"]) is not int or vertex["count"] < 1:
            return None
        counts[kind] = vertex["count"]
    return Shape(counts["core"], counts.get("gpu", 0)) if "core" in counts else None
