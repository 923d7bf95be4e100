"""What a jobspec (RFC 25 V1) asks of one machine. Pure: no I/O, no clock.

Only what the embedded engine needs is read; unknown attributes and shell options are ignored, as Flux does.
What Flux would honour and this engine cannot (queues, dependencies) is refused instead of ignored.
"""

from __future__ import annotations

import math
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ..engine import EngineError

#: Seconds between the first task's exit and the job's end by exception: Flux's default for ``exit-timeout``.
EXIT_TIMEOUT = 30.0

_FSD_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BRACKETS = re.compile(r"\[([0-9,\-]+)\]")


class Plan(NamedTuple):
    """One job, as this engine will run it. Counts are for the whole job, times are seconds."""

    command: List[str]
    tasks: int
    nodes: int
    cores: int
    gpus: int
    exclusive: bool
    #: 0 means no limit.
    duration: float
    cwd: str
    env: Dict[str, str]
    #: None: the engine's own spool.
    stdout: Optional[str]
    stderr: Optional[str]
    append: bool
    constraint: Dict[str, Any]
    #: None: never.
    exit_timeout: Optional[float]
    exit_on_error: bool
    #: "on" (each task sees all GPUs of the job), "per-task" or "off".
    gpu_affinity: str


def read_jobspec(spec: Any, cwd: str) -> Plan:
    """The plan of a jobspec; ``cwd`` stands in where it names none. Raises EngineError saying what is wrong where."""
    top = _mapping(spec, "the jobspec")
    if top.get("version") != 1:
        raise _wrong("version", "must be 1")
    nodes, slots, cores, gpus, exclusive = _resources(_only(top.get("resources"), "resources"))
    task = _only(top.get("tasks"), "tasks")
    attributes = _mapping(top.get("attributes", {}), "attributes")
    system = _mapping(attributes.get("system", {}), "attributes.system")
    _refuse(system)
    shell = _mapping(system.get("shell", {}), "attributes.system.shell")
    options = _mapping(shell.get("options", {}), "attributes.system.shell.options")
    stdout, stderr, append = _outputs(options.get("output", {}))
    return Plan(
        command=_strings(task.get("command"), "tasks[0].command"),
        tasks=_task_count(task, options, nodes, slots, cores),
        nodes=nodes,
        cores=cores,
        gpus=gpus,
        exclusive=exclusive,
        duration=_seconds(system.get("duration", 0), "attributes.system.duration"),
        cwd=_text(system.get("cwd", cwd), "attributes.system.cwd"),
        env=_environment(system.get("environment", {})),
        stdout=stdout,
        stderr=stderr,
        append=append,
        constraint=_mapping(system.get("constraints") or {}, "attributes.system.constraints"),
        exit_timeout=_exit_timeout(options.get("exit-timeout")),
        exit_on_error=bool(options.get("exit-on-error", False)),
        gpu_affinity=str(options.get("gpu-affinity", "on")),
    )


def unsatisfiable(plan: Plan, host: str, cores: int, gpus: int) -> Optional[str]:
    """Why this machine can never run the plan, or None. Raises EngineError for a constraint that is not RFC 31."""
    wants: Optional[Tuple[int, str, int]] = None
    if plan.nodes > 1:
        wants = (plan.nodes, "nodes", 1)
    elif plan.cores > cores:
        wants = (plan.cores, "cores", cores)
    elif plan.gpus > gpus:
        wants = (plan.gpus, "GPUs", gpus)
    matches = constraint_matches(plan.constraint, host)
    if wants is not None:
        return "unsatisfiable request: needs %d %s, this machine offers %d" % wants
    if not matches:
        return "unsatisfiable request: the constraint excludes this machine (%s, rank 0, no properties)" % host
    return None


def constraint_matches(constraint: Any, host: str) -> bool:
    """An RFC 31 constraint on the one node of this engine: rank 0, no properties. Raises EngineError."""
    rule = _mapping(constraint, "attributes.system.constraints")
    if not rule:
        return True
    if len(rule) != 1:
        raise _wrong("attributes.system.constraints", "one operator each, this has %s" % ", ".join(sorted(rule)))
    operator, values = next(iter(rule.items()))
    if not isinstance(values, list):
        raise _wrong("attributes.system.constraints.%s" % operator, "must be a list")
    if operator in ("and", "or", "not"):
        results = [constraint_matches(value, host) for value in values]
        if operator == "or":
            return any(results) or not results
        return all(results) == (operator == "and")
    names = [_text(value, "attributes.system.constraints.%s" % operator) for value in values]
    if operator == "hostlist":
        return any(host_in(name, host) for name in names)
    if operator == "ranks":
        return any(idset(name).holds(0) for name in names)
    if operator == "properties":
        return all(name.startswith("^") for name in names)
    raise _wrong("attributes.system.constraints", "unknown operator %r" % operator)


def host_in(hostlist: str, host: str) -> bool:
    """Whether a hostlist (RFC 29) names a host; membership only, so that a large list is never expanded."""
    for item in re.split(r",(?![^\[]*\])", hostlist):
        pattern = "([0-9]+)".join(re.escape(part) for part in _BRACKETS.split(item)[::2])
        match = re.match(pattern + r"\Z", host)
        if match and all(_digits_in(*pair) for pair in zip(_BRACKETS.findall(item), match.groups())):
            return True
    return False


def _digits_in(ranges: str, digits: str) -> bool:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numeric = first.isdigit() and (last or first).isdigit()
        # "[08-11]" is zero padded to its width, "[8-11]" is not.
        if (
            numeric
            and int(first) <= int(digits) <= int(last or first)
            and len(digits) == max(len(first), len(str(int(digits))))
        ):
            return True
    return False


class _Ranges(NamedTuple):
    """An idset as ranges: "0-4000000000" must not be expanded to be asked about 0."""

    ranges: List[Tuple[int, int]]

    def holds(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self.ranges)

    @property
    def largest(self) -> int:
        return max(last for _, last in self.ranges)


def idset(text: str) -> _Ranges:
    """An idset (RFC 22), with or without brackets. Raises EngineError."""
    inner = text.strip()
    if inner.startswith("[") and inner.endswith("]"):
        inner = inner[1:-1]
    ranges: List[Tuple[int, int]] = []
    for part in inner.split(","):
        match = re.match(r"([0-9]+)(?:-([0-9]+))?\Z", part)
        if not match:
            raise EngineError("%r is not an idset" % text, "bad-request")
        ranges.append((int(match.group(1)), int(match.group(2) or match.group(1))))
    return _Ranges(ranges)


def _resources(top: Dict[str, Any]) -> Tuple[int, int, int, int, bool]:
    """(nodes, slots, cores, gpus, exclusive) in all."""
    nodes, exclusive, slot, where = 1, False, top, "resources[0]"
    if top.get("type") == "node":
        nodes = _count(top, where)
        exclusive = bool(top.get("exclusive", False))
        where += ".with[0]"
        slot = _only(top.get("with"), "resources[0].with")
    if slot.get("type") != "slot":
        raise _wrong(where, "must be a slot, this is %r" % (slot.get("type"),))
    slots = nodes * _count(slot, where)
    exclusive = exclusive or bool(slot.get("exclusive", False))
    held = {"core": 0, "gpu": 0}
    for index, child in enumerate(_list(slot.get("with"), where + ".with")):
        place = "%s.with[%d]" % (where, index)
        vertex = _mapping(child, place)
        if vertex.get("type") not in held:
            raise _wrong(place, "must be core or gpu, this is %r" % (vertex.get("type"),))
        held[str(vertex["type"])] += slots * _count(vertex, place)
    if not held["core"]:
        raise _wrong(where, "a slot needs at least one core")
    return nodes, slots, held["core"], held["gpu"], exclusive


def _task_count(task: Dict[str, Any], options: Dict[str, Any], nodes: int, slots: int, cores: int) -> int:
    per_resource = options.get("per-resource")
    if isinstance(per_resource, dict):
        units = {"node": nodes, "core": cores}.get(str(per_resource.get("type")))
        if units is None:
            raise _wrong("attributes.system.shell.options.per-resource.type", "must be node or core")
        return units * _count(per_resource, "attributes.system.shell.options.per-resource", 1)
    count = _mapping(task.get("count", {"per_slot": 1}), "tasks[0].count")
    if "total" in count:
        return _positive(count["total"], "tasks[0].count.total")
    return slots * _positive(count.get("per_slot"), "tasks[0].count.per_slot")


def _outputs(value: Any) -> Tuple[Optional[str], Optional[str], bool]:
    """(stdout path, stderr path, append). In Flux stderr goes where stdout goes unless it has a place of its own."""
    where = "attributes.system.shell.options.output"
    output = _mapping(value, where)
    stdout = _output_path(output.get("stdout"), where + ".stdout")
    stderr = _output_path(output["stderr"], where + ".stderr") if "stderr" in output else stdout
    return stdout, stderr, output.get("mode") == "append"


def _output_path(value: Any, where: str) -> Optional[str]:
    if value is None:
        return None
    stream = _mapping(value, where)
    if stream.get("type", "file") != "file":
        return None
    return _text(stream.get("path"), where + ".path")


def _refuse(system: Dict[str, Any]) -> None:
    if system.get("queue"):
        raise EngineError("%r is not a valid queue: the embedded engine has no queues" % (system["queue"],))
    if system.get("dependencies"):
        raise EngineError("the embedded engine has no job dependencies", "not-possible")


def _exit_timeout(value: Any) -> Optional[float]:
    if value is None:
        return EXIT_TIMEOUT
    if value == "none":
        return None
    match = re.match(r"([0-9]*\.?[0-9]+)(ms|s|m|h|d|)\Z", str(value))
    if not match:
        raise _wrong("attributes.system.shell.options.exit-timeout", "%r is not a duration" % (value,))
    return float(match.group(1)) * _FSD_UNITS[match.group(2)]


def _environment(value: Any) -> Dict[str, str]:
    env = _mapping(value, "attributes.system.environment")
    for name, text in env.items():
        if not name or "=" in name or not isinstance(text, str):
            # the value may be a secret, so only the name is shown
            raise _wrong("attributes.system.environment", "%r is not a variable with a text" % (name,))
    return env


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise _wrong(where, "must be seconds, 0 or more")
    return float(value)


def _count(vertex: Dict[str, Any], where: str, default: Optional[int] = None) -> int:
    return _positive(vertex.get("count", default), where + ".count")


def _positive(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(where, "must be a whole number above 0")
    return value


def _strings(value: Any, where: str) -> List[str]:
    items = _list(value, where)
    if not items or not all(isinstance(item, str) for item in items):
        raise _wrong(where, "must be a list of texts, at least one")
    return items


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _wrong(where, "must be a text")
    return value


def _list(value: Any, where: str) -> List[Any]:
    if not isinstance(value, list):
        raise _wrong(where, "must be a list")
    return value


def _only(value: Any, where: str) -> Dict[str, Any]:
    items = _list(value, where)
    if len(items) != 1:
        raise _wrong(where, "must have exactly one item, this has %d" % len(items))
    return _mapping(items[0], where + "[0]")


def _mapping(value: Any, where: str) -> Dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _wrong(where, "must be an object")
    return value


def _wrong(where: str, problem: str) -> EngineError:
    return EngineError("jobspec: %s: %s" % (where, problem), "bad-request")
