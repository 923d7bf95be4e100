"""broker.toml and the broker's command line: which brokers there are, what each may use, and how they start.

Sources: flux-config-bootstrap(5), flux-config-resource(5), flux-config-ingest(5), flux-broker-attributes(7).
"""

from __future__ import annotations

import math
import posixpath
import tomllib
from typing import Any

from executors.render.command import initial_program, is_plain_job, split_words
from executors.render.minicluster import MiniCluster, Program
from executors.render.names import BROKER_PORT, service_name
from executors.render.places import PodPaths, places_for
from executors.render.toml import toml_text
from executors.schema import quantity
from executors.spec import SPEC, Container, MiniClusterSpec

#: Seconds that a broker takes for an attempt to reach its parent, before it looks the name up again.
_CONNECT_TIMEOUT = "1s"


def broker_config(cluster: MiniCluster, program: Program | None) -> str:
    """The text of broker.toml: ours, or the spec's own with what only we know put into it."""
    spec = cluster.spec
    made = _defaults(cluster, places_for(cluster, program))
    if spec.flux.broker_config:
        made = _merged(tomllib.loads(spec.flux.broker_config), made, spec.flux.container.mount_path)
    return toml_text(made)


def _defaults(cluster: MiniCluster, places: PodPaths) -> dict[str, Any]:
    hosts = broker_hosts(cluster)
    return {
        "bootstrap": {
            "curve_cert": places.certificate,
            # The entry script says otherwise in pods that have no other addresses. It is not for all: libzmq finds only
            # IPv6 addresses of an interface then, and asks the DNS for those first.
            "enable_ipv6": False,
            "default_port": BROKER_PORT,
            "default_bind": "tcp://*:%p",
            "default_connect": f"tcp://%h.{service_name(cluster)}:%p",
            "hosts": [{"host": host} for host in hosts],
        },
        "resource": {"noverify": True, "config": [{"hosts": ",".join(hosts), **_rank_resources(cluster)}]},
        **_scheduler(cluster),
        "ingest": {"validator": {"plugins": ["jobspec", "feasibility"]}},
    }


def _scheduler(cluster: MiniCluster) -> dict[str, Any]:
    flux = cluster.spec.flux
    if flux.queue_policy:  # Fluxion's word, so Fluxion it is
        return {"sched-fluxion-qmanager": {"queue-policy": flux.queue_policy}}
    if cluster.profile.of_resource and not flux.simple_scheduler:
        return {}  # as upstream: Flux takes Fluxion where the image has it, and its own simple one otherwise
    name = "sched-simple" if flux.simple_scheduler else "sched-backfill"
    return {"modules": {"alternatives": {"sched": name}}}


def _merged(given: dict[str, Any], ours: dict[str, Any], view: str) -> dict[str, Any]:
    made = dict(given)
    certificate = {"curve_cert": ours["bootstrap"]["curve_cert"]}
    made["bootstrap"] = {**ours["bootstrap"], **given.get("bootstrap", {}), **certificate}
    hosts = ",".join(host["host"] for host in made["bootstrap"]["hosts"])
    resource = given.get("resource", {})
    # A path below the view is where upstream's operator would have put an R of its own; nobody does here.
    if "config" not in resource and resource.get("path", view).startswith(view):
        rest = {name: value for name, value in resource.items() if name != "path"}
        config = [{**one, "hosts": hosts} for one in ours["resource"]["config"]]
        made["resource"] = {**rest, **ours["resource"], "config": config}
    # What can never run is refused, also where the user's words are about other things of the ingest.
    made["ingest"] = {**ours["ingest"], **given.get("ingest", {})}
    for name in ours:
        made.setdefault(name, ours[name])
    return made


def broker_hosts(cluster: MiniCluster) -> list[str]:
    """Hostlists (RFC 29) of all brokers that may ever join, in the order of their ranks."""
    spec = cluster.spec
    if spec.flux.burst_hostlist:
        return [spec.flux.burst_hostlist]
    hosts = [_range(cluster.name, spec.max_size)]
    for at, burst in enumerate(spec.flux.burst_clusters):
        hosts.append(_range(burst.name or f"burst-{at}", burst.size or spec.size))
    return hosts


def _range(prefix: str, count: int) -> str:
    return f"{prefix}-0" if count == 1 else f"{prefix}-[0-{count - 1}]"


def _rank_resources(cluster: MiniCluster) -> dict[str, str]:
    """Of a resource whose container asks for no CPU (few of upstream's do), as many cores as its tasks need."""
    spec = cluster.spec
    return rank_resources(spec.flux_container, -(-spec.tasks // spec.size) if cluster.profile.of_resource else 1)


def rank_resources(container: Container, cores: int = 1) -> dict[str, str]:
    """Core and GPU ids (RFC 22) that a rank offers: its container's, never the node's.

    Cores are the CPU request (which is what the Kubernetes scheduler has set aside), else the limit, rounded up;
    ``cores`` where neither is given. GPUs are the sum of all extended resources that are named ``<vendor>/gpu``.
    """
    requests, limits = container.resources.requests, container.resources.limits
    cores = max(1, math.ceil(quantity(requests.get("cpu", limits.get("cpu", cores)))))
    # A request of an extended resource must equal its limit.
    given = {**limits, **requests}
    gpus = sum(math.ceil(quantity(amount)) for name, amount in given.items() if name.endswith("/gpu"))
    found = {"cores": _ids(cores)}
    if gpus > 0:
        found["gpus"] = _ids(gpus)
    return found


def _ids(count: int) -> str:
    return "0" if count == 1 else f"0-{count - 1}"


def unfinished(archive: str) -> str:
    """The file that a broker saves its state to. The entry script gives it the archive's name when it is whole."""
    directory, name = posixpath.split(archive)
    return posixpath.join(directory, f".unfinished-{name}")


def brokers_wanted(spec: MiniClusterSpec) -> int:
    """The brokers without which an instance does not begin."""
    return spec.min_size or spec.size


def job_waits(cluster: MiniCluster) -> bool:
    """Whether it is the command's job that waits for the brokers, in Flux's queue, and not the lead's broker."""
    return cluster.profile.of_resource and is_plain_job(cluster.spec)


def _connect_timeout(cluster: MiniCluster) -> str:
    given = cluster.spec.flux.connect_timeout
    # The CRD's default, which the API server fills in: nobody has chosen it.
    if cluster.profile.of_resource and given == SPEC.fields["flux"].fields["connectTimeout"].default:
        given = ""
    return given or _CONNECT_TIMEOUT


def broker_command(cluster: MiniCluster, program: Program | None) -> list[str]:
    """The argv of every broker; only the lead runs what follows the options, its initial program."""
    spec, flux = cluster.spec, cluster.spec.flux
    places = places_for(cluster, program)
    prefix = split_words(spec.flux_container.commands.prefix) + [word for word in flux.wrap.split(",") if word]
    # Flux's own schedulers let a job wait for brokers that have not joined yet. Fluxion refuses it for good.
    early = job_waits(cluster) if program is None else not flux.queue_policy
    quorum = 1 if early else brokers_wanted(spec)
    attributes = {
        "broker.quorum": quorum,
        "tbon.connect_timeout": _connect_timeout(cluster),
        "local-uri": places.broker_uri,
        "rundir": places.broker_run,
        "statedir": places.broker_state,
        # What the agent could not end in time is cut short: a pod's grace period is not to be waited for. Jobs of a
        # resource's command are ended by the broker itself, and have that long to write what they must.
        "broker.cleanup-timeout": "5" if cluster.profile.of_resource else "0.5",
        "broker.shutdown-timeout": "1" if program is not None else "3",
    }
    if flux.topology:
        attributes["tbon.topo"] = flux.topology
    if flux.log_level is not None and not spec.logging.quiet:
        attributes["log-stderr-level"] = flux.log_level
    elif cluster.profile.of_resource and spec.logging.quiet:
        attributes["log-stderr-level"] = 0
    if spec.logging.zeromq:
        attributes["tbon.zmqdebug"] = 1
    if spec.archive_path:
        attributes["content.dump"] = unfinished(spec.archive_path)
    words = initial_program(spec, program, cluster.profile)
    if not words:
        attributes["broker.rc2_none"] = 1
    options = [f"-S{name}={value}" for name, value in attributes.items()]
    verbose = ["-v"] if spec.logging.debug else []
    return [*prefix, "flux", "broker", "-c", places.broker_config, *verbose, *options, *words]
