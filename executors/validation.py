"""What is wrong with a MiniCluster: its document, the names that follow from it, and what direct mode cannot do. Pure.

Each problem is one text: field path, value, cure. Nothing that was asked for is left out without a word.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from executors.api_rules import api_problems, is_below, plain_path
from executors.schema import quantity
from executors.spec import Container, MiniClusterSpec, Volume

#: A DNS label (RFC 1123), which pod names, host names, labels' values and volumes are held to.
LABEL_LIMIT = 63
#: ``-`` and five characters, which the Job's controller adds to ``<name>-<index>``.
_POD_SUFFIX = 6
_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?\Z")
_VOLUME_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_ENV_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*\Z")
#: RFC 23.
_DURATION = re.compile(r"([0-9]+(\.[0-9]*)?|\.[0-9]+)(ms|[smhd])?\Z")


def name_problems(name: str, spec: MiniClusterSpec) -> list[str]:
    """Names of pods, hosts and labels that would not be legal, for the largest index up to ``max_size``."""
    found = []
    if not _LABEL.match(name):
        found.append(f"name: {name!r} must begin with a letter and hold small letters, digits and - only")
    last = f"{name}-{spec.max_size - 1}"
    derived = {
        "host name": last,
        "pod name": last + "-" + "x" * (_POD_SUFFIX - 1),
        "service pod's name": f"{name}-services" if spec.services else "",
        "ConfigMap and volume name": f"{name}-entrypoint",
    }
    # A Service's name is a label of its own, and begins with a letter.
    derived |= {f"Service of container {one.name}": f"{name}-{one.name}" for one in _with_ports(spec)}
    for what, text in derived.items():
        excess = len(text) - LABEL_LIMIT
        if excess > 0:
            found.append(
                f"name: {name!r} makes the {what} {text!r}, {len(text)} characters long; {LABEL_LIMIT} are allowed, "
                f"so shorten the name by {excess}" + (" or lower maxSize" if text.startswith(last) else "")
            )
    for field, hosts in _given_hosts(spec).items():
        if not any(host.startswith(f"{name}-") for host in hosts):
            found.append(
                f"{field}: {', '.join(hosts)} does not hold {name}-0, the lead's host name, which follows from the "
                "MiniCluster's; leave the hosts out, or use that name"
            )
    if any(container.name == name and container is not spec.flux_container for container in spec.containers):
        found.append(f"name: {name!r} is the name of a container beside the broker's; rename that")
    services = [spec.headless_name or name, *(f"{name}-{one.name}" for one in _with_ports(spec))]
    if len(set(services)) < len(services):
        found.append(f"network.headlessName: {spec.headless_name!r} is the Service of a container too; choose another")
    if spec.headless_name and (not _LABEL.match(spec.headless_name) or len(spec.headless_name) > LABEL_LIMIT):
        found.append(
            f"network.headlessName: {spec.headless_name!r} must begin with a letter, hold small letters, digits and - "
            f"only, and at most {LABEL_LIMIT} characters"
        )
    return found


def _with_ports(spec: MiniClusterSpec) -> list[Container]:
    """Sidecars that get a Service."""
    return [container for container in spec.containers if container.ports and container is not spec.flux_container]


def _given_hosts(spec: MiniClusterSpec) -> dict[str, list[str]]:
    """Hostlists of the user's own, by field."""
    found = {}
    if spec.flux.burst_hostlist:
        found["flux.bursting.hostlist"] = [spec.flux.burst_hostlist]
    try:
        config = tomllib.loads(spec.flux.broker_config)
    except tomllib.TOMLDecodeError:
        config = {}  # `direct_problems` says so
    if not list(_config_problems(config, "")):
        hosts = _value(config, ("bootstrap", "hosts"))
        if hosts:
            found["flux.brokerConfig: bootstrap.hosts"] = [host["host"] for host in hosts]
    return found


#: Fields that direct mode cannot honour at all, and what to do about each.
NOT_IN_DIRECT_MODE: dict[tuple[str, ...], str] = {
    ("flux", "arch"): "direct mode downloads no binaries for the entry; leave it out",
    ("flux", "bursting", "leadBroker"): "direct mode joins no lead broker elsewhere; use the provisioner operator",
    ("flux", "completeWorkers"): "a follower whose index completes is never started again; leave it out",
    ("flux", "disableSocket"): "the agent needs the broker's socket at its fixed path; leave it out",
    ("flux", "mungeSecret"): "direct mode serves one user, without munge; use the provisioner operator",
    ("pod", "resources"): (
        "it becomes the pods' overhead, which Kubernetes takes from a RuntimeClass only; give resources to containers[]"
    ),
}


#: The same of our Flux Operator, which honours the others.
NOT_BY_OUR_OPERATOR: dict[tuple[str, ...], str] = {
    ("flux", "bursting", "leadBroker"): (
        "all its pods would be followers of a lead elsewhere, so none of them could report how the command ended; "
        "leave it out"
    ),
    ("pod", "resources"): NOT_IN_DIRECT_MODE[("pod", "resources")],
}


def resource_problems(spec: MiniClusterSpec, path: str = "spec") -> list[str]:
    """What our Flux Operator cannot honour of a MiniCluster resource, or Kubernetes would refuse."""
    found = [
        f"{path}.{'.'.join(field)}: {_short(value)} is not supported: {cure}"
        for field, cure in NOT_BY_OUR_OPERATOR.items()
        if (value := _value(spec.document, field))
    ]
    if spec.document.get("pod", {}).get("restartPolicy") == "Always":
        found.append(f"{path}.pod.restartPolicy: 'Always' is not allowed in a Job; leave it out")
    return found + _common_problems(spec, path)


def direct_problems(spec: MiniClusterSpec, path: str = "minicluster", *, program: bool = True) -> list[str]:
    """What direct mode cannot honour, or Kubernetes would refuse. ``program``: the lead runs a run's agent."""
    found = [
        f"{path}.{'.'.join(field)}: {_short(value)} is not supported in direct mode: {cure}"
        for field, cure in NOT_IN_DIRECT_MODE.items()
        if (value := _value(spec.document, field))
    ]
    policy = spec.document.get("pod", {}).get("restartPolicy", "Never")
    if policy != "Never":
        found.append(
            f"{path}.pod.restartPolicy: {policy!r} is not supported in direct mode: the Job itself replaces "
            "pods that fail, which needs Never; leave it out"
        )
    found += _common_problems(spec, path)
    if not program:
        found += _command_problems(spec, f"{path}.containers[{spec.flux_index}]")
    return found


def _common_problems(spec: MiniClusterSpec, path: str) -> list[str]:
    found = api_problems(spec, path)
    found += [*_flux_problems(spec, f"{path}.flux"), *_variable_problems(spec.flux.environment, f"{path}.flux")]
    for at, container in enumerate(spec.containers):
        found += _container_problems(container, f"{path}.containers[{at}]")
        of_the_broker = container is spec.flux_container
        found += (_broker_problems if of_the_broker else _beside_problems)(container, f"{path}.containers[{at}]")
    for at, container in enumerate(spec.services):
        where = f"{path}.services[{at}]"
        found += [*_container_problems(container, where), *_beside_problems(container, where)]
    return [*found, *_volume_clashes(spec, path)]


def replaced_by_program(spec: MiniClusterSpec, path: str = "minicluster") -> list[str]:
    """Fields of the spec that say what runs, in whose place a run's agent runs. To be shown, not refused."""
    container = spec.flux_container
    where = f"{path}.containers[{spec.flux_index}]"
    given = {
        f"{path}.interactive": spec.interactive,
        f"{path}.tasks": "tasks" in spec.document,
        f"{path}.flux.optionFlags": spec.flux.option_flags,
        f"{path}.flux.submitCommand": spec.flux.submit_command,
        f"{where}.command": container.command,
        f"{where}.commands.script": container.commands.script,
        f"{where}.launcher": container.launcher,
        f"{where}.batch": container.batch,
        f"{where}.logs": container.logs,
    }
    return [field for field, value in given.items() if value]


def _value(document: Mapping[str, Any], field: tuple[str, ...]) -> Any:
    found: Any = document
    for name in field:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _flux_problems(spec: MiniClusterSpec, path: str) -> Iterator[str]:
    flux = spec.flux
    if flux.broker_config:
        try:
            config = tomllib.loads(flux.broker_config)
        except tomllib.TOMLDecodeError as err:
            yield f"{path}.brokerConfig: is not valid TOML: {err}"
        else:
            yield from _config_problems(config, f"{path}.brokerConfig")
    if flux.connect_timeout and not _DURATION.match(flux.connect_timeout):
        yield f"{path}.connectTimeout: {flux.connect_timeout!r} must be a Flux duration such as 5s or 500ms"
    if flux.minimal_service and flux.topology not in ("", "custom"):
        yield (
            f"{path}.topology: {flux.topology!r} needs names of all brokers, and minimalService gives the lead's only; "
            "leave out one of them"
        )
    if flux.queue_policy and flux.simple_scheduler:
        yield f"{path}.scheduler: queuePolicy is for Fluxion, and simple is another scheduler; leave out one of them"
    for name, text in (("optionFlags", flux.option_flags), ("submitCommand", flux.submit_command)):
        yield from _word_problems(f"{path}.{name}", text)
    if not flux.container.disable:
        if not flux.container.mount_path.startswith("/"):
            yield f"{path}.container.mountPath: {flux.container.mount_path!r} must be an absolute path"
        taken = [container.name for container in spec.containers if container.name == flux.container.name]
        if taken:
            yield f"{path}.container.name: {flux.container.name!r} is a name in containers[] too; give it another"


def _config_problems(config: Mapping[str, Any], path: str) -> Iterator[str]:
    """Only what our own rendering builds on; the rest is Flux's to judge."""
    for name in ("bootstrap", "resource"):
        if not isinstance(config.get(name, {}), dict):
            yield f"{path}: {name} must be a table; see flux-config-{name}(5)"
    hosts = _value(config, ("bootstrap", "hosts"))
    if hosts is not None and not (
        isinstance(hosts, list) and all(isinstance(host, dict) and isinstance(host.get("host"), str) for host in hosts)
    ):
        yield f"{path}: bootstrap.hosts must be a list of tables with a host; see flux-config-bootstrap(5)"
    if not isinstance(_value(config, ("resource", "path")) or "", str):
        yield f"{path}: resource.path must be a string; see flux-config-resource(5)"


def _word_problems(path: str, text: str) -> Iterator[str]:
    try:
        shlex.split(text)
    except ValueError as err:
        yield f"{path}: {_short(text)} cannot be split into words: {err}; close the quote"


def _variable_problems(names: Iterable[str], path: str) -> Iterator[str]:
    for name in names:
        if not _ENV_NAME.match(name):
            yield f"{path}.environment: {name!r} cannot be the name of an environment variable"
        if name in _OUR_VARIABLES or name.startswith("FLUXOP_"):
            yield f"{path}.environment: {name!r} is set by us; leave it out"


def _container_problems(container: Container, path: str) -> Iterator[str]:
    yield from _word_problems(f"{path}.command", "" if container.batch else container.command)
    yield from _word_problems(f"{path}.commands.prefix", container.commands.prefix)
    if container.name and (not _VOLUME_NAME.match(container.name) or len(container.name) > LABEL_LIMIT):
        yield f"{path}.name: {container.name!r} must hold small letters, digits and - only, at most {LABEL_LIMIT}"
    yield from _variable_problems([*container.environment, *container.secrets], path)
    for name in sorted(set(container.environment) & set(container.secrets)):
        yield f"{path}.secrets.{name}: is given in environment too; leave out one of them"
    if container.working_dir and not container.working_dir.startswith("/"):
        yield f"{path}.workingDir: {container.working_dir!r} must be an absolute path"
    for volume in container.volumes:
        yield from _volume_problems(volume, f"{path}.volumes.{volume.name}")


def _broker_problems(container: Container, path: str) -> Iterator[str]:
    if container.commands.service_pre:
        yield f"{path}.commands.servicePre: is for services[]; give pre, brokerPre or workerPre"
    if container.no_wrap_entrypoint:
        yield f"{path}.noWrapEntrypoint: is for containers beside the broker's, which our entry has to start"


def _beside_problems(container: Container, path: str) -> Iterator[str]:
    """Fields that would have no effect in a container without a broker."""
    commands = container.commands
    for_brokers = {
        "runFlux": container.run_flux,
        "launcher": container.launcher,
        "batch": container.batch,
        "logs": container.logs,
        "commands.brokerPre": commands.broker_pre,
        "commands.workerPre": commands.worker_pre,
        "commands.prefix": commands.prefix,
        "commands.script": commands.script,
    }
    given = [name for name, value in for_brokers.items() if value]
    if given:
        yield f"{path}: {', '.join(given)}: only the broker's container uses this; leave it out"
    if container.no_wrap_entrypoint and any((commands.init, commands.pre, commands.service_pre, commands.post)):
        yield f"{path}.noWrapEntrypoint: without our entry its commands do not run; leave out one or the other"


_SOURCES = {
    "claimName": "claim_name",
    "configMapName": "config_map_name",
    "csiDriver": "csi_driver",
    "emptyDir": "empty_dir",
    "hostPath": "host_path",
    "secretName": "secret_name",
}


def _volume_problems(volume: Volume, path: str) -> Iterator[str]:
    if not _VOLUME_NAME.match(volume.name) or len(volume.name) > LABEL_LIMIT:
        yield f"{path}: the name {volume.name!r} must hold small letters, digits and - only, at most {LABEL_LIMIT}"
    given = [name for name, attribute in _SOURCES.items() if getattr(volume, attribute)]
    if len(given) != 1:
        yield f"{path}: has {' and '.join(given) or 'no source'}; give exactly one of {', '.join(_SOURCES)}"
    in_memory = volume.empty_dir and volume.empty_dir_medium.lower() == "memory"
    if not volume.path.startswith("/") and not (in_memory and not volume.path):
        yield f"{path}.path: {volume.path!r} must be an absolute path, where it is mounted"
    if volume.items and not volume.config_map_name:
        yield f"{path}.items: are keys of a ConfigMap; give configMapName, or leave them out"
    if volume.empty_dir_size_limit:
        try:
            quantity(volume.empty_dir_size_limit)
        except ValueError as err:
            yield f"{path}.emptyDirSizeLimit: {err}; give one such as 4Gi"


#: Our variables, volumes and mounts (`executors.render`), which a user's would hide.
_OUR_VARIABLES = ("FLUX_URI", "FLUX_DISABLE_JOB_CLEANUP", "JOB_COMPLETION_INDEX")
_OUR_VOLUMES = ("flux-state", "flux-curve", "flux-view", "flux-wish")
_OUR_MOUNTS = ("/flux_operator", "/flux_operator_curve", "/flux_operator_wish", "/run/flux_operator")


def _volume_clashes(spec: MiniClusterSpec, path: str) -> Iterator[str]:
    for group, containers in (("containers", spec.containers), ("services", spec.services)):
        seen: dict[str, Volume] = {}
        for at, container in enumerate(containers):
            for volume in container.volumes:
                where = f"{path}.{group}[{at}].volumes.{volume.name}"
                first = seen.setdefault(volume.name, volume)
                if _source(first) != _source(volume):
                    yield f"{where}: is another volume than the one of that name before it; rename one of them"
                if volume.name in _OUR_VOLUMES or volume.name.endswith("-entrypoint"):
                    yield f"{where}: the name is reserved; rename it"
                view = () if spec.flux.container.disable else (spec.flux.container.mount_path, "/opt/software")
                mount = plain_path(volume.path)
                if mount in map(plain_path, (*_OUR_MOUNTS, *view)) or is_below(mount, _OUR_MOUNTS):
                    yield f"{where}.path: {volume.path!r} is a reserved directory; mount it elsewhere"


def _source(volume: Volume) -> list[Any]:
    return [
        getattr(volume, name) for name in (*_SOURCES.values(), "items", "csi_driver_attributes", "empty_dir_medium")
    ]


def _command_problems(spec: MiniClusterSpec, path: str) -> Iterator[str]:
    container = spec.flux_container
    if not (spec.interactive or container.command or container.commands.script):
        yield f"{path}.command: is missing, so there is nothing to run; give one, or set interactive: true"
