"""The pipeline config: one YAML for every engine, the environment, and options -> `RunConfig`.

    apiVersion: flux-operator-executors/v1
    kind: FluxRun
    run: {provisioner: local, idleTimeout: 300, orphanTimeout: 3600, brokers: 1}     # seconds
    jobDefaults: {queue: default, coresPerTask: 1, duration: 3600, env: {}}          # seconds
    minicluster: {size: 4, ...}                                                      # kept word for word

A plain ``kind: MiniCluster`` file is accepted in its place. Precedence: option > environment > file > default. The
environment variable of a key is FLUX_OPERATOR_ and the key in capitals (``FLUX_OPERATOR_IDLE_TIMEOUT``); keys that hold
mappings have none. Everything wrong is said at once, each problem with its field, its value and the cure.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from executors.errors import ConfigError, SpecError
from executors.names import PLACE_VARIABLE
from executors.pod_patch import POD_PATCH, pod_patch_problems
from executors.schema import MINICLUSTER_API_VERSION, Type, unknown
from executors.yaml_text import MAX_SIZE, YamlTextError, read_mapping, shown

if TYPE_CHECKING:
    from pathlib import Path

    from executors.spec import MiniClusterSpec  # 6 ms, and most runs have no MiniCluster

API_VERSION = "flux-operator-executors/v1"
ENV_PREFIX = "FLUX_OPERATOR_"
#: Where an instance comes from. The one list (`executors.provision.choice` has a class for each).
PROVISIONERS = ("local", "attach", "direct", "operator")
ENGINES = ("flux", "embedded")
PILOTS = ("auto", "on", "off")


@dataclass(frozen=True)
class RunSection:
    """Section ``run``. Times are seconds; 0 turns a time-out off."""

    provisioner: str | None = None
    #: For the provisioner local: flux or embedded; None: flux where it is installed.
    engine: str | None = None
    idle_timeout: float = 300.0
    orphan_timeout: float = 3600.0
    brokers: int = 1
    #: on: the agent's own engine runs, on cores of the Flux instance, what needs no Flux. auto: once many jobs of the
    #: run were short, and never in an attached instance.
    pilot: str = "off"
    # Of use on Kubernetes only.
    #: kubeconfig file and context in it; None: as kubectl would choose.
    kubeconfig: str | None = None
    context: str | None = None
    #: None: the context's.
    namespace: str | None = None
    #: For all pods to run: autoscalers may have to bring nodes.
    start_timeout: float = 600.0
    #: For a pod that no node has room for, while no autoscaler works on it.
    schedule_timeout: float = 30.0
    max_lifetime: float = 604800.0
    ttl: float = 600.0
    #: A strategic merge patch for the pod template, for the provisioner direct.
    pod_patch: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class JobDefaults:
    """Section ``jobDefaults``: what applies where a job says nothing. ``duration`` in seconds, 0: no limit."""

    queue: str | None = None
    bank: str | None = None
    cores_per_task: int = 1
    gpus_per_task: int = 0
    duration: float = 0.0
    urgency: int = 16
    env: Mapping[str, str] = field(default_factory=dict)


#: Seconds of `run.orphanTimeout` where nobody can come back to an instance whose client was killed.
ORPHAN_TIMEOUT_ALONE = 60.0


@dataclass(frozen=True)
class RunConfig:
    """A whole config. ``origins`` tells for each key where its value came from."""

    run: RunSection = RunSection()
    job_defaults: JobDefaults = JobDefaults()
    minicluster: MiniClusterSpec | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    def with_default(self, key: str, value: Any) -> RunConfig:
        """The same with another default for a key of ``run``; a value that somebody has chosen stays."""
        if self.origins.get(key) != "default":
            return self
        return replace(self, run=replace(self.run, **{KEYS[key].field: value}))


class _Bad(ValueError):
    """What is wrong with a value, and the cure."""


def _seconds(value: object) -> float:
    number = _real(value, "a number of seconds, without a unit")
    if number < 0:
        raise _Bad("must not be negative; give seconds, 0 for no limit")
    return number


def _real(value: object, what: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise _Bad(f"must be {what}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _Bad(f"must be {what}")
    return float(value)


def _whole(low: int, high: int | None = None) -> Callable[[object], int]:
    what = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
            raise _Bad(f"must be {what}")
        return value

    return parse


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise _Bad("must be a string of printable characters that is not empty")
    return value


def _provisioner(value: object) -> str:
    if value not in PROVISIONERS:
        raise _Bad(f"must be {', '.join(PROVISIONERS[:-1])} or {PROVISIONERS[-1]}")
    return str(value)


def _engine(value: object) -> str:
    if value not in ENGINES:
        raise _Bad(f"must be {' or '.join(ENGINES)}")
    return str(value)


def _pilot(value: object) -> str:
    if isinstance(value, bool):
        value = "on" if value else "off"  # YAML 1.1 reads the words so
    if value not in PILOTS:
        raise _Bad(f"must be {', '.join(PILOTS[:-1])} or {PILOTS[-1]}")
    return str(value)


def _env(value: object) -> Mapping[str, str]:
    """Never says a value, which may be a secret."""
    if not isinstance(value, dict):
        raise _Bad(": must be a mapping of names to strings")
    found = []
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            found.append(f": {shown(name)} cannot be the name of an environment variable")
        elif not isinstance(text, str) or "\0" in text:
            what = "has null bytes" if isinstance(text, str) else f"is of the type {type(text).__name__}"
            found.append(f".{name}: the value {what}; it must be a string: put it in quotes")
    if found:
        raise _Bad(*found)
    return dict(value)


def _pod_patch(value: object) -> Mapping[str, Any]:
    found = pod_patch_problems(value)
    if found:
        raise _Bad(*found)
    return copy.deepcopy(dict(value)) if isinstance(value, Mapping) else {}


class Key(NamedTuple):
    """One key of the config."""

    #: Of its section's dataclass.
    field: str
    #: Reads its value, which may be text from the environment too.
    parse: Callable[[object], Any]
    #: What may be in a file.
    kind: Type


_TEXT = Type(kind="string", low=1)
_SECONDS = Type(kind="number", low=0)

#: Every key. The one list from which all others follow.
KEYS: dict[str, Key] = {
    "run.provisioner": Key("provisioner", _provisioner, Type(kind="string", choices=PROVISIONERS)),
    "run.engine": Key("engine", _engine, Type(kind="string", choices=ENGINES)),
    "run.idleTimeout": Key("idle_timeout", _seconds, _SECONDS),
    "run.orphanTimeout": Key("orphan_timeout", _seconds, _SECONDS),
    "run.brokers": Key("brokers", _whole(1, 1000), Type(kind="integer", low=1, high=1000)),
    "run.pilot": Key("pilot", _pilot, Type(kind="string", choices=PILOTS)),
    "run.kubeconfig": Key("kubeconfig", _text, _TEXT),
    "run.context": Key("context", _text, _TEXT),
    "run.namespace": Key("namespace", _text, _TEXT),
    "run.startTimeout": Key("start_timeout", _seconds, _SECONDS),
    "run.scheduleTimeout": Key("schedule_timeout", _seconds, _SECONDS),
    "run.maxLifetime": Key("max_lifetime", _seconds, _SECONDS),
    "run.ttl": Key("ttl", _seconds, _SECONDS),
    "run.podPatch": Key("pod_patch", _pod_patch, POD_PATCH),
    "jobDefaults.queue": Key("queue", _text, _TEXT),
    "jobDefaults.bank": Key("bank", _text, _TEXT),
    "jobDefaults.coresPerTask": Key("cores_per_task", _whole(1), Type(kind="integer", low=1)),
    "jobDefaults.gpusPerTask": Key("gpus_per_task", _whole(0), Type(kind="integer", low=0)),
    "jobDefaults.duration": Key("duration", _seconds, _SECONDS),
    "jobDefaults.urgency": Key("urgency", _whole(0, 31), Type(kind="integer", low=0, high=31)),
    "jobDefaults.env": Key("env", _env, Type(kind="map", item=Type(kind="string"))),
}
#: Keys that have no environment variable, and whose values may hold secrets.
_MAPPINGS = ("jobDefaults.env", "run.podPatch")
#: How alike two names are of which the one is taken for a misspelling of the other.
_MISSPELT = 0.8
_SECTIONS = ("run", "jobDefaults")
_TOP = ("apiVersion", "kind", *_SECTIONS, "minicluster")


def variable_name(key: str) -> str:
    """The environment variable of a config key: ``run.idleTimeout`` -> ``FLUX_OPERATOR_IDLE_TIMEOUT``."""
    name = key.split(".", 1)[1]
    return ENV_PREFIX + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


def config_of_text(text: str) -> dict[str, Any]:
    """The content of a config that is given as text, for `load_config`. Raises ConfigError."""
    try:
        return read_mapping(text)
    except YamlTextError as err:
        raise ConfigError([f"config: {err}"]) from None


def load_config(
    path: Path | str | Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    options: Mapping[str, object] | None = None,
) -> RunConfig:
    """Read a config file (None: no file; a mapping: its content), the environment, options by key (None: not given).

    Raises ConfigError with every problem found.
    """
    problems: list[str] = []
    if path is None or isinstance(path, Mapping):
        source, document = ("", {}) if path is None else ("config", dict(path))
    else:
        source, document = str(path), _read(str(path), problems)
    minicluster: Mapping[str, Any] | None = None
    bare = document.get("kind") == "MiniCluster"
    if bare:
        minicluster = _bare_minicluster(document, problems)
        document = _run_of_bare(document)
    elif path is not None and not problems:
        _check_top(document, problems)
        minicluster = document.get("minicluster")
        if minicluster is not None and not isinstance(minicluster, dict):
            problems.append(f"minicluster: {shown(minicluster)} must be a mapping, a v1alpha2 MiniCluster spec")
    given = _given(document, source, os.environ if environ is None else environ, options or {}, problems)
    values: dict[str, dict[str, Any]] = {"run": {}, "jobDefaults": {}}
    for key, (origin, raw) in given.items():
        name, parse, _ = KEYS[key]
        try:
            values[key.split(".")[0]][name] = parse(raw)
        except _Bad as err:
            if key == "run.podPatch":
                problems += err.args
            elif key == "jobDefaults.env":
                problems += [f"{key}{problem} ({origin})" for problem in err.args]
            else:
                problems.append(f"{key}: {shown(raw)} ({origin}) {err}")
    spec = None
    if isinstance(minicluster, dict):
        from executors.spec import parse_spec  # see above

        try:
            spec = parse_spec(minicluster, "spec" if bare else "minicluster")
        except SpecError as err:
            problems += err.problems
    if problems:
        raise ConfigError(problems, source or "config")
    origins = {key: given[key][0] if key in given else "default" for key in KEYS}
    return RunConfig(RunSection(**values["run"]), JobDefaults(**values["jobDefaults"]), spec, origins)


def describe(config: RunConfig) -> list[str]:
    """One line per key: its value and where that came from."""
    lines = []
    for key, (name, _, _) in KEYS.items():
        section = config.run if key.startswith("run.") else config.job_defaults
        value = getattr(section, name)
        # Values of env may be secrets that somebody put in the wrong place.
        shown = sorted(value) if key in _MAPPINGS else value
        lines.append(f"{key} = {shown} ({config.origins.get(key, 'default')})")
    return lines


def _given(
    document: Mapping[str, Any],
    source: str,
    environ: Mapping[str, str],
    options: Mapping[str, object],
    problems: list[str],
) -> dict[str, tuple[str, object]]:
    """What was given for each key, by the strongest giver."""
    given: dict[str, tuple[str, object]] = {}
    for section in _SECTIONS:
        content = document.get(section)
        if content is None:
            continue
        if not isinstance(content, dict):
            problems.append(f"{section}: {shown(content)} must be a mapping")
            continue
        for name, value in content.items():
            key = f"{section}.{name}"
            if key not in KEYS:
                problems.append(unknown(key, key, KEYS))
            elif value is not None:
                given[key] = (f"file {source}" if source != "config" else "config", value)
    for key in KEYS:
        variable = variable_name(key)
        if environ.get(variable) and key not in _MAPPINGS:
            given[key] = (f"environment {variable}", environ[variable])
        if options.get(key) is not None:
            given[key] = ("option", options[key])
    problems += [unknown(key, key, KEYS) for key in options if key not in KEYS]
    problems += _unread_variables(environ)
    return given


def _unread_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables that mean to be a key's. Others of the prefix may be a site's own, or Kubernetes' for a Service."""
    import difflib  # for few only

    read = {variable_name(key): key for key in KEYS}
    known = [one for one, key in read.items() if key not in _MAPPINGS] + [PLACE_VARIABLE]
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or not value:
            continue
        if read.get(variable) in _MAPPINGS:
            yield f"{variable}: has no effect; {read[variable]} can be given in a config file only"
        elif variable not in known:
            suffixes = [one.removeprefix(ENV_PREFIX) for one in known]
            for near in difflib.get_close_matches(variable.removeprefix(ENV_PREFIX), suffixes, 1, _MISSPELT):
                yield f"{variable}: is not known; did you mean {ENV_PREFIX}{near}?"


def _check_top(document: Mapping[str, Any], problems: list[str]) -> None:
    if document.get("kind") != "FluxRun":
        problems.append(f"kind: {_given_or_missing(document, 'kind')} must be FluxRun (or MiniCluster, for a bare one)")
    if document.get("apiVersion") != API_VERSION:
        problems.append(f"apiVersion: {_given_or_missing(document, 'apiVersion')} must be {API_VERSION}")
    problems += [unknown(str(name), name, _TOP) for name in document if name not in _TOP]


def _given_or_missing(document: Mapping[str, Any], name: str) -> str:
    return shown(document[name]) if name in document else "is missing; it"


def _bare_minicluster(document: Mapping[str, Any], problems: list[str]) -> Mapping[str, Any] | None:
    if document.get("apiVersion") != MINICLUSTER_API_VERSION:
        problems.append(f"apiVersion: {_given_or_missing(document, 'apiVersion')} must be {MINICLUSTER_API_VERSION}")
    spec = document.get("spec")
    if not isinstance(spec, dict):
        problems.append(f"spec: {_given_or_missing(document, 'spec')} must be a mapping, a v1alpha2 MiniCluster spec")
        return None
    return spec


def _run_of_bare(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a bare MiniCluster says of its run: the namespace that it wants to be in."""
    metadata = document.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return {} if namespace is None else {"run": {"namespace": namespace}}


def _read(path: str, problems: list[str]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return read_mapping(file.read(MAX_SIZE + 1))
    except OSError as err:
        problems.append(f"cannot be read: {err.strerror or err}")
    except YamlTextError as err:
        problems.append(str(err))
    except ValueError as err:  # a path with a null character
        problems.append(f"cannot be read: {err}")
    return {}
