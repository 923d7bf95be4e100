"""What is asked for (`JobRequest`), and its translation to a Flux jobspec V1 (RFC 14, RFC 25). Pure.

Every problem of a request is reported at once, for that request alone: one bad item never spoils a batch.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from executors.errors import RequestError

#: Linux takes no single argument or environment string longer than this, in bytes (MAX_ARG_STRLEN less its null).
MAX_ARGUMENT = 131071

#: `JobRequest.attributes` of a job with an empty stdin. Flux takes a quarter of a second to arrange it.
NO_INPUT: Mapping[str, Any] = {"system.shell.options.input": {"stdin": {"type": "file", "path": "/dev/null"}}}

#: Longest name of a job, in characters: lists of jobs hold it.
MAX_NAME = 65_536

JSONValue = Any  # a JSON value; mypy's recursive aliases make every use of one a cast

_ENV_NAME = re.compile(r"[^=\0]+\Z")
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

#: Fields that may be None.
_OPTIONAL = ("cwd", "queue", "bank", "stdout", "stderr", "identity", "constraint")

#: Urgencies are 0 (held) to 31 (RFC 14).
DEFAULT_URGENCY = 16


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job. Durations are seconds, counts are whole numbers; None means "what the config or Flux says".

    ``tasks`` processes of ``argv`` are started, each with ``cores_per_task`` cores and ``gpus_per_task`` GPUs, spread
    over ``nodes`` nodes (None: wherever there is room). ``env`` is a delta: a value of None removes a variable.
    """

    argv: Sequence[str]
    name: str = ""
    #: The same for the same attempt asked for twice: submitting twice runs once. None: always a new job.
    key: str | None = None
    cwd: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    #: Travels by the stream into a 0600 file that the job reads and removes; never part of the jobspec.
    secret_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    nodes: int | None = None
    tasks: int = 1
    cores_per_task: int | None = None
    gpus_per_task: int | None = None
    #: Whole nodes; needs ``nodes``.
    exclusive: bool = False
    duration: float | None = None
    queue: str | None = None
    bank: str | None = None
    #: 0 (held) to 31; 16 is Flux's default.
    urgency: int | None = None
    #: RFC 31 constraint object.
    constraint: Mapping[str, JSONValue] | None = None
    #: Files for the output streams; the same path for both puts them in one file.
    stdout: str | None = None
    stderr: str | None = None
    #: More attributes, by dotted path below ``attributes`` (``system.shell.options.mpi``).
    attributes: Mapping[str, JSONValue] = field(default_factory=dict)
    #: Ask for CPU seconds and peak memory of the job in its result. Such a job has an empty stdin; under Flux any other
    #: job that reads its stdin waits for input that nobody sends (see `NO_INPUT`).
    measure: bool = False
    #: What makes this request the same work as an earlier one; None: everything in it but the environment.
    identity: str | None = None


@dataclass(frozen=True)
class Defaults:
    """What applies where a request says nothing (config section ``jobDefaults``)."""

    queue: str | None = None
    bank: str | None = None
    cores_per_task: int = 1
    gpus_per_task: int = 0
    duration: float = 0.0
    urgency: int = DEFAULT_URGENCY
    env: Mapping[str, str] = field(default_factory=dict)
    #: Options of Flux's job shell (``flux submit -o``).
    shell_options: Mapping[str, JSONValue] = field(default_factory=dict)


class Environment:
    """What a job's processes see. Jobs with the same one share the object, so that a message holds it once."""

    __slots__ = ("encoded", "values")

    def __init__(self, values: dict[str, str | None]) -> None:
        #: None: not even if the node has it.
        self.values = values
        #: Its JSON form.
        self.encoded = json.dumps(values, separators=(",", ":")).encode("ascii")


class Environments:
    """Makes the environments of jobs from what they inherit: on this machine the client's environment.

    Elsewhere (``base`` is None) they inherit that of the instance's own node, so that what is made here is a delta.
    Not thread-safe.
    """

    #: Distinct ones to remember; a workflow has a few (threads, temporary directories), not one per job.
    _KEEP = 64

    def __init__(self, base: Mapping[str, str] | None) -> None:
        self._delta = base is None
        self._base = dict(base or {})
        self._made: dict[object, Environment] = {}

    def for_request(self, request: JobRequest, defaults: Mapping[str, str]) -> Environment:
        # A secret may be inherited too, and Flux stores the jobspec.
        unset = frozenset(request.secret_env)
        key = (frozenset(request.env.items()), unset, id(defaults))
        found = self._made.get(key)
        if found is None:
            merged = {**self._base, **defaults, **request.env}
            values: dict[str, str | None] = {k: v for k, v in merged.items() if v is not None and k not in unset}
            if self._delta:
                values.update(dict.fromkeys((*unset, *(k for k, v in request.env.items() if v is None))))
            found = Environment(values)
            if len(self._made) >= self._KEEP:
                del self._made[next(iter(self._made))]
            self._made[key] = found
        return found


@dataclass(frozen=True)
class Submission:
    """A request made ready for the wire."""

    #: Complete, with the environment.
    jobspec: dict[str, JSONValue]
    environment: Environment = field(repr=False)
    urgency: int
    key: str | None
    digest: str
    name: str
    secret_env: Mapping[str, str] = field(repr=False)
    measure: bool

    def to_wire(self) -> dict[str, JSONValue]:
        """The JSON object that the agent's ``submit`` takes, without the environment, which a batch holds once."""
        attributes = dict(self.jobspec["attributes"])
        attributes["system"] = {k: v for k, v in attributes["system"].items() if k != "environment"}
        jobspec = {**self.jobspec, "attributes": attributes}
        item: dict[str, JSONValue] = {"jobspec": jobspec, "urgency": self.urgency, "digest": self.digest}
        if self.key is not None:
            item["key"] = self.key
        if self.name:
            item["name"] = self.name
        if self.secret_env:
            item["secret_env"] = dict(self.secret_env)
        if self.measure:
            item["measure"] = True
        return item


def prepare_submission(
    request: JobRequest, defaults: Defaults, environments: Environments, base_cwd: str
) -> Submission:
    """The jobspec of a request and what goes with it. Raises RequestError with every problem found."""
    problems = list(_problems(request))
    if problems:
        raise RequestError(problems, f"job {request.name}" if request.name else "job request")
    if not (request.cwd or base_cwd):
        raise RequestError(["cwd: is not given, and the client's own working directory is gone"], request.name)
    environment = environments.for_request(request, defaults.env)
    system: dict[str, JSONValue] = {
        "duration": float(defaults.duration if request.duration is None else request.duration),
        "cwd": request.cwd or base_cwd,
        "environment": environment.values,
    }
    if request.name:
        system["job"] = {"name": request.name}
    for field_name in ("queue", "bank"):
        value = getattr(request, field_name) or getattr(defaults, field_name)
        if value:
            system[field_name] = value
    if request.constraint:
        system["constraints"] = dict(request.constraint)
    options: dict[str, JSONValue] = dict(defaults.shell_options)
    output = {
        stream: {"type": "file", "path": path}
        for stream, path in (("stdout", request.stdout), ("stderr", request.stderr))
        if path is not None
    }
    if output:
        options["output"] = output
    if options:
        system["shell"] = {"options": options}
    jobspec: dict[str, JSONValue] = {
        "version": 1,
        "resources": _resources(request, defaults),
        "tasks": [{"command": list(request.argv), "slot": "task", "count": _count(request)}],
        "attributes": {"system": system},
    }
    for path, value in request.attributes.items():
        _set(jobspec["attributes"], path.split("."), value)
    return Submission(
        jobspec=jobspec,
        environment=environment,
        urgency=defaults.urgency if request.urgency is None else request.urgency,
        key=request.key,
        digest=digest_of(request, jobspec),
        name=request.name,
        secret_env=request.secret_env,
        measure=request.measure,
    )


def digest_of(request: JobRequest, jobspec: Mapping[str, JSONValue]) -> str:
    """24 hex digits that say whether two requests are the same work; the environment is not part of it."""
    if request.identity is not None:
        text = request.identity
    else:
        attributes = dict(jobspec["attributes"])
        attributes["system"] = {k: v for k, v in attributes["system"].items() if k != "environment"}
        text = json.dumps([jobspec["resources"], jobspec["tasks"], attributes], sort_keys=True)
    import hashlib  # not for everyone who imports the package: it starts OpenSSL

    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _resources(request: JobRequest, defaults: Defaults) -> list[JSONValue]:
    cores = defaults.cores_per_task if request.cores_per_task is None else request.cores_per_task
    gpus = defaults.gpus_per_task if request.gpus_per_task is None else request.gpus_per_task
    inside: list[JSONValue] = [{"type": "core", "count": cores}]
    if gpus:
        inside.append({"type": "gpu", "count": gpus})
    slot: dict[str, JSONValue] = {"type": "slot", "count": request.tasks, "label": "task", "with": inside}
    if request.nodes is None:
        return [slot]
    # Slots are per node; tasks that do not divide evenly are spread by a total task count (RFC 25).
    slot["count"] = math.ceil(request.tasks / request.nodes)
    node: dict[str, JSONValue] = {"type": "node", "count": request.nodes, "with": [slot]}
    if request.exclusive:
        node["exclusive"] = True
    return [node]


def _count(request: JobRequest) -> dict[str, int]:
    if request.nodes is not None and request.tasks % request.nodes:
        return {"total": request.tasks}
    return {"per_slot": 1}


def _set(target: dict[str, JSONValue], path: Sequence[str], value: JSONValue) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise RequestError([f"attributes: {'.'.join(path)!r} leads through {part}, which is a value already"])
    target[path[-1]] = value


def _problems(request: JobRequest) -> Sequence[str]:
    wrong_types = list(_type_problems(request))
    return wrong_types or _value_problems(request)


#: What each field that is no number may be, besides None where that is its default.
_TYPES: Mapping[str, tuple[type, str]] = {
    "argv": (Sequence, "list of words"),
    **dict.fromkeys(("name", "cwd", "queue", "bank", "stdout", "stderr", "identity"), (str, "string")),
    **dict.fromkeys(("env", "secret_env", "constraint", "attributes"), (Mapping, "mapping")),
    **dict.fromkeys(("exclusive", "measure"), (bool, "bool")),
}


def _type_problems(request: JobRequest) -> Iterator[str]:
    for name, (kind, wanted) in _TYPES.items():
        value = getattr(request, name)
        if isinstance(value, kind) or (value is None and name in _OPTIONAL):
            continue
        # Never the value of an environment, which may be a secret.
        shown = "" if name.endswith("env") else f"{str(value)[:60]!r} "
        cure = f"; give str({name})" if isinstance(value, os.PathLike) else ""
        yield f"{name}: {shown}is of the type {type(value).__name__}; it must be a {wanted}{cure}"
    if isinstance(request.attributes, Mapping):
        for path in request.attributes:
            if not isinstance(path, str):
                yield f"attributes: {path!r} is of the type {type(path).__name__}; it must be a dotted path, a string"


def _value_problems(request: JobRequest) -> Sequence[str]:
    found: list[str] = []
    found += _argv_problems(request.argv)
    found += _count_problem("tasks", request.tasks, 1)
    for name, low in (("nodes", 1), ("cores_per_task", 1), ("gpus_per_task", 0)):
        value = getattr(request, name)
        if value is not None:
            found += _count_problem(name, value, low)
    if not found and request.nodes is not None and request.tasks < request.nodes:
        found.append(f"nodes: {request.nodes} nodes for {request.tasks} tasks; at least one task per node is needed")
    if request.exclusive and request.nodes is None:
        found.append("exclusive: whole nodes are asked for, but not how many; set nodes")
    if request.duration is not None and not _is_duration(request.duration):
        found.append(f"duration: {request.duration!r} is not a number of seconds >= 0 (0: no limit)")
    if request.urgency is not None and not (_is_int(request.urgency) and 0 <= request.urgency <= 31):
        found.append(f"urgency: {request.urgency!r} is not a whole number from 0 to 31")
    if request.key is not None and not (isinstance(request.key, str) and 0 < len(request.key) <= 256):
        found.append(f"key: {str(request.key)[:40]!r} is not a string of 1 to 256 characters")
    if len(request.name) > MAX_NAME:
        found.append(f"name: is longer than {MAX_NAME} characters")
    for name in ("name", "queue", "bank"):
        text = getattr(request, name) or ""
        if "\0" in text or not _is_utf8(text):
            found.append(f"{name}: {text[:60]!r} holds what is no text (a null byte, or bytes that are not UTF-8)")
    found += _env_problems(request)
    for name in ("stdout", "stderr", "cwd"):
        path = getattr(request, name)
        if path is not None and (not path or "\0" in path or not os.path.isabs(path)):
            found.append(f"{name}: {path!r} is not an absolute path")
    for path in request.attributes:
        if path.split(".")[0] not in ("system", "user") or not all(path.split(".")) or "." not in path:
            found.append(f"attributes: {path!r} must be a dotted path that begins with system. or user.")
        elif path.split(".")[:2] == ["system", "environment"]:
            found.append(f"attributes: {path!r} is not set here; give env")
    try:
        json.dumps([request.constraint, dict(request.attributes)])
    except (TypeError, ValueError) as err:
        found.append(f"constraint or attributes: not JSON: {err}")
    return found


def _argv_problems(argv: Sequence[str]) -> list[str]:
    if isinstance(argv, str):
        return [f"argv: {argv!r} is one string; give a list of words, for instance ['sh', '-c', {argv!r}]"]
    if not argv:
        return ["argv: is empty; give the program and its arguments"]
    if not argv[0]:
        return ["argv[0]: is empty; give the program"]
    found = []
    for index, word in enumerate(argv):
        if not isinstance(word, str):
            found.append(f"argv[{index}]: {word!r} is a {type(word).__name__}, not a string")
        elif "\0" in word:
            found.append(f"argv[{index}]: holds a null byte, which no program can be given")
        elif not _is_utf8(word):
            found.append(f"argv[{index}]: is not valid text (UTF-8), which a jobspec cannot hold")
        elif len(word.encode()) > MAX_ARGUMENT:
            found.append(
                f"argv[{index}]: is longer than {MAX_ARGUMENT} bytes, the longest argument that Linux takes; "
                "put it into a file"
            )
    return found


def _count_problem(name: str, value: object, low: int) -> list[str]:
    if not _is_int(value) or value < low:  # type: ignore[operator]  # an int by then
        return [f"{name}: {value!r} is not a whole number >= {low}"]
    return []


def _env_problems(request: JobRequest) -> list[str]:
    found = []
    for name, value in request.env.items():
        if not isinstance(name, str) or not _ENV_NAME.match(name):
            found.append(f"env: {name!r} cannot be the name of an environment variable")
        elif value is not None and (not isinstance(value, str) or "\0" in value):
            found.append(f"env.{name}: must be a string without null bytes, or None to remove the variable")
        elif value is not None and not _is_utf8(name + value):
            found.append(f"env.{name}: is not valid text (UTF-8), which a jobspec cannot hold")
        elif value is not None and len(value.encode()) + len(name.encode()) >= MAX_ARGUMENT:
            found.append(f"env.{name}: is longer than {MAX_ARGUMENT} bytes, the longest string that Linux takes")
    for name, value in request.secret_env.items():
        if not isinstance(name, str) or not _SECRET_NAME.match(name):
            found.append(f"secret_env: {name!r} cannot be the name of a shell variable")
        elif not isinstance(value, str) or "\0" in value:
            found.append(f"secret_env.{name}: must be a string without null bytes")  # never its value
        elif name in request.env:
            found.append(f"secret_env.{name}: is given in env too")
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15
