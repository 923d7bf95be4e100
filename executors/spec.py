"""A v1alpha2 MiniCluster spec: what direct mode renders is typed, the rest stays in ``document``, word for word. Pure.

Field names follow the resource's own, in snake case. What must not live here: Kubernetes objects (`executors.render`),
and what can be honoured by whom (`executors.validation`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from executors.errors import SpecError
from executors.schema import JSONValue, shape_problems

#: Image of a container that names none: Flux's own, of a version that has all that is used here.
DEFAULT_IMAGE = "docker.io/fluxrm/flux-core:bookworm-v0.88.0"
#: Flux's view for images without Flux, where the spec names none (the CRD's own default).
DEFAULT_VIEW_IMAGE = "ghcr.io/converged-computing/flux-view-ubuntu:tag-noble"


@dataclass(frozen=True)
class Resources:
    """Kubernetes quantities as given: ``{"cpu": "2", "memory": "4Gi"}``."""

    requests: Mapping[str, str | int] = field(default_factory=dict)
    limits: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Volume:
    """One volume and where it is mounted; exactly one source is set in a volume that can be rendered."""

    name: str
    path: str = ""
    read_only: bool = False
    claim_name: str = ""
    config_map_name: str = ""
    secret_name: str = ""
    host_path: str = ""
    empty_dir: bool = False
    empty_dir_medium: str = ""
    empty_dir_size_limit: str = ""
    csi_driver: str = ""
    csi_driver_attributes: Mapping[str, str] = field(default_factory=dict)
    #: Key -> path, of a ConfigMap.
    items: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Commands:
    """Shell texts of the user's around the broker, and words before it (``prefix``)."""

    init: str = ""
    pre: str = ""
    broker_pre: str = ""
    worker_pre: str = ""
    service_pre: str = ""
    post: str = ""
    prefix: str = ""
    script: str = ""


@dataclass(frozen=True)
class Container:
    """A container of the brokers' pods, or of the service pod."""

    name: str = ""
    image: str = ""
    #: Always, IfNotPresent or Never.
    image_pull_policy: str = "IfNotPresent"
    image_pull_secret: str = ""
    run_flux: bool = False
    command: str = ""
    commands: Commands = Commands()
    launcher: bool = False
    batch: bool = False
    batch_raw: bool = False
    logs: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Variable -> (name of a Secret, its key).
    secrets: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    working_dir: str = ""
    ports: tuple[int, ...] = ()
    resources: Resources = Resources()
    #: As given.
    security_context: Mapping[str, JSONValue] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    post_start: str = ""
    pre_stop: str = ""
    no_wrap_entrypoint: bool = False


@dataclass(frozen=True)
class View:
    """Where Flux comes from: ``disable`` means the image's own, else an init container's image holds it."""

    disable: bool = False
    image: str = DEFAULT_VIEW_IMAGE
    name: str = "flux-view"
    mount_path: str = "/mnt/flux"
    pull_always: bool = False
    image_pull_secret: str = ""
    python_path: str = ""
    working_dir: str = ""
    resources: Resources = Resources()
    security_context: Mapping[str, JSONValue] = field(default_factory=dict)


@dataclass(frozen=True)
class BurstCluster:
    """Brokers elsewhere that may join. ``size`` 0: as many as here; ``name`` "": burst-N."""

    name: str = ""
    size: int = 0


@dataclass(frozen=True)
class FluxOptions:
    """Section ``flux``. ``connect_timeout`` is a Flux duration (RFC 23), "" where not given."""

    container: View = View()
    broker_config: str = ""
    burst_hostlist: str = ""
    burst_clusters: tuple[BurstCluster, ...] = ()
    connect_timeout: str = ""
    curve_cert: str = field(default="", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    log_level: int | None = None
    minimal_service: bool = False
    no_wait_socket: bool = False
    option_flags: str = ""
    queue_policy: str = ""
    simple_scheduler: bool = False
    submit_command: str = ""
    topology: str = ""
    wrap: str = ""


@dataclass(frozen=True)
class Pod:
    """Section ``pod``, as given."""

    annotations: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    automount_service_account_token: bool = False
    dns_policy: str = ""
    host_ipc: bool = False
    host_pid: bool = False
    node_affinity: Mapping[str, Sequence[str]] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    runtime_class_name: str = ""
    scheduler_name: str = ""
    security_context: Mapping[str, JSONValue] = field(default_factory=dict)
    service_account_name: str = ""
    tolerations: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True)
class Logging:
    quiet: bool = False
    debug: bool = False
    timed: bool = False
    strict: bool = False
    zeromq: bool = False


@dataclass(frozen=True)
class MiniClusterSpec:
    """A valid spec. ``size`` and ``max_size`` are pods; ``document`` is what was given, and is not to be changed."""

    document: Mapping[str, JSONValue] = field(repr=False)
    containers: tuple[Container, ...]
    size: int = 1
    #: At least ``size``.
    max_size: int = 1
    min_size: int | None = None
    tasks: int = 1
    interactive: bool = False
    #: Seconds; None where not given.
    deadline_seconds: int | None = None
    cleanup: bool = False
    backoff_limit: int | None = None
    share_process_namespace: bool = False
    archive_path: str = ""
    job_labels: Mapping[str, str] = field(default_factory=dict)
    logging: Logging = Logging()
    headless_name: str = ""
    disable_affinity: bool = False
    flux: FluxOptions = FluxOptions()
    pod: Pod = Pod()
    services: tuple[Container, ...] = ()
    #: ``run.podPatch``, which stands beside the document (direct mode).
    pod_patch: Mapping[str, JSONValue] = field(default_factory=dict, repr=False)

    @property
    def public_document(self) -> dict[str, JSONValue]:
        """The document without what is a secret (``flux.curveCert``), to be shown and kept in annotations."""
        flux = {name: value for name, value in self.document.get("flux", {}).items() if name != "curveCert"}
        return {name: flux if name == "flux" else value for name, value in self.document.items()}

    @property
    def flux_index(self) -> int:
        """Place in ``containers`` of the one that runs the broker."""
        return next((at for at, one in enumerate(self.containers) if one.run_flux), 0)

    @property
    def flux_container(self) -> Container:
        """The container that runs the broker."""
        return self.containers[self.flux_index]


def default_document(size: int = 1) -> dict[str, JSONValue]:
    """The spec of a run that gives none: one container of `DEFAULT_IMAGE`, with the Flux that is in it."""
    return {"size": size, "flux": {"container": {"disable": True}}, "containers": [{"image": DEFAULT_IMAGE}]}


def parse_spec(document: Mapping[str, JSONValue], path: str = "minicluster") -> MiniClusterSpec:
    """Read a spec. Raises SpecError with every problem; ``path`` is where the document stands in what was given."""
    problems = shape_problems(document, path)
    if not problems:
        problems = list(_rule_problems(document, path))
    if problems:
        raise SpecError(problems)
    document = copy.deepcopy(dict(document))
    logging = document.get("logging", {})
    network = document.get("network", {})
    size = document.get("size", 1)
    return MiniClusterSpec(
        document=document,
        containers=tuple(_container(one) for one in document["containers"]),
        size=size,
        max_size=max(size, document.get("maxSize", 0)),
        min_size=document.get("minSize"),
        tasks=document.get("tasks", 1),
        interactive=document.get("interactive", False),
        deadline_seconds=document.get("deadlineSeconds"),
        cleanup=document.get("cleanup", False),
        backoff_limit=document.get("backoffLimit"),
        share_process_namespace=document.get("shareProcessNamespace", False),
        archive_path=document.get("archive", {}).get("path", ""),
        job_labels=document.get("jobLabels", {}),
        logging=Logging(**logging),
        headless_name=network.get("headlessName", ""),
        disable_affinity=network.get("disableAffinity", False),
        flux=_flux(document.get("flux", {})),
        pod=_pod(document.get("pod", {})),
        services=tuple(_container(one) for one in document.get("services", [])),
    )


def _rule_problems(document: Mapping[str, JSONValue], path: str) -> Sequence[str]:
    """Rules between fields; the document's shape is right by now."""
    found = []
    size = document.get("size", 1)
    if document.get("maxSize", size) < size:
        found.append(f"{path}.maxSize: {document['maxSize']} is less than size {size}; raise it, or leave it out")
    if document.get("minSize", 0) > max(size, document.get("maxSize", 0)):
        found.append(f"{path}.minSize: {document['minSize']} is more than there can be pods; lower it")
    if not document["containers"]:
        found.append(f"{path}.containers: [] is empty; give one container at least")
    running = [at for at, one in enumerate(document["containers"]) if one.get("runFlux")]
    if len(document["containers"]) > 1 and len(running) != 1:
        found.append(
            f"{path}.containers: {len(running)} of {len(document['containers'])} have runFlux: true; "
            "exactly one runs the broker, the others are beside it"
        )
    for group in ("containers", "services"):
        names: set[str] = set()
        for at, one in enumerate(document.get(group, [])):
            where = f"{path}.{group}[{at}]"
            name = one.get("name", "")
            if not name and (group == "services" or (len(document[group]) > 1 and not one.get("runFlux"))):
                found.append(f"{where}.name: is missing; every container beside the broker's needs one")
            if name and name in names:
                found.append(f"{where}.name: {name!r} is used twice; give each container a name of its own")
            names.add(name)
            if one.get("batch") and one.get("launcher"):
                found.append(f"{where}: batch and launcher exclude each other; set one of them")
    return found


def _resources(given: Mapping[str, JSONValue]) -> Resources:
    found = given.get("resources", {})
    return Resources(found.get("requests", {}), found.get("limits", {}))


def _container(given: Mapping[str, JSONValue]) -> Container:
    commands = given.get("commands", {})
    life = given.get("lifeCycle", {})
    always = "Always" if given.get("pullAlways") else "IfNotPresent"
    return Container(
        name=given.get("name", ""),
        image=given.get("image", ""),
        image_pull_policy=given.get("imagePullPolicy", always),
        image_pull_secret=given.get("imagePullSecret", ""),
        run_flux=given.get("runFlux", False),
        command=given.get("command", ""),
        commands=Commands(
            init=commands.get("init", ""),
            pre=commands.get("pre", ""),
            broker_pre=commands.get("brokerPre", ""),
            worker_pre=commands.get("workerPre", ""),
            service_pre=commands.get("servicePre", ""),
            post=commands.get("post", ""),
            prefix=commands.get("prefix", ""),
            script=commands.get("script", ""),
        ),
        launcher=given.get("launcher", False),
        batch=given.get("batch", False) or given.get("batchRaw", False),
        batch_raw=given.get("batchRaw", False),
        logs=given.get("logs", ""),
        environment=given.get("environment", {}),
        secrets={name: (one["name"], one["key"]) for name, one in given.get("secrets", {}).items()},
        working_dir=given.get("workingDir", ""),
        ports=tuple(given.get("ports", [])),
        resources=_resources(given),
        security_context=given.get("securityContext", {}),
        volumes=tuple(_volume(name, one) for name, one in given.get("volumes", {}).items()),
        post_start=life.get("postStartExec", ""),
        pre_stop=life.get("preStopExec", ""),
        no_wrap_entrypoint=given.get("noWrapEntrypoint", False),
    )


def _volume(name: str, given: Mapping[str, JSONValue]) -> Volume:
    return Volume(
        name=name,
        path=given.get("path", ""),
        read_only=given.get("readOnly", False),
        claim_name=given.get("claimName", ""),
        config_map_name=given.get("configMapName", ""),
        secret_name=given.get("secretName", ""),
        host_path=given.get("hostPath", ""),
        empty_dir=given.get("emptyDir", False),
        empty_dir_medium=given.get("emptyDirMedium", ""),
        empty_dir_size_limit=given.get("emptyDirSizeLimit", ""),
        csi_driver=given.get("csiDriver", ""),
        csi_driver_attributes=given.get("csiDriverAttributes", {}),
        items=given.get("items", {}),
    )


def _flux(given: Mapping[str, JSONValue]) -> FluxOptions:
    bursting = given.get("bursting", {})
    scheduler = given.get("scheduler", {})
    return FluxOptions(
        container=_view(given.get("container", {})),
        broker_config=given.get("brokerConfig", ""),
        burst_hostlist=bursting.get("hostlist", ""),
        burst_clusters=tuple(BurstCluster(**one) for one in bursting.get("clusters", [])),
        connect_timeout=given.get("connectTimeout", ""),
        curve_cert=given.get("curveCert", ""),
        environment=given.get("environment", {}),
        log_level=given.get("logLevel"),
        minimal_service=given.get("minimalService", False),
        no_wait_socket=given.get("noWaitSocket", False),
        option_flags=given.get("optionFlags", ""),
        queue_policy=scheduler.get("queuePolicy", ""),
        simple_scheduler=scheduler.get("simple", False),
        submit_command=given.get("submitCommand", ""),
        topology=given.get("topology", ""),
        wrap=given.get("wrap", ""),
    )


def _view(given: Mapping[str, JSONValue]) -> View:
    return View(
        disable=given.get("disable", False),
        image=given.get("image", DEFAULT_VIEW_IMAGE),
        name=given.get("name", "flux-view"),
        mount_path=given.get("mountPath", "/mnt/flux"),
        pull_always=given.get("pullAlways", False),
        image_pull_secret=given.get("imagePullSecret", ""),
        python_path=given.get("pythonPath", ""),
        working_dir=given.get("workingDir", ""),
        resources=_resources(given),
        security_context=given.get("securityContext", {}),
    )


def _pod(given: Mapping[str, JSONValue]) -> Pod:
    return Pod(
        annotations=given.get("annotations", {}),
        labels=given.get("labels", {}),
        automount_service_account_token=given.get("automountServiceAccountToken", False),
        dns_policy=given.get("dnsPolicy", ""),
        host_ipc=given.get("hostIPC", False),
        host_pid=given.get("hostPID", False),
        node_affinity=given.get("nodeAffinity", {}),
        node_selector=given.get("nodeSelector", {}),
        runtime_class_name=given.get("runtimeClassName", ""),
        scheduler_name=given.get("schedulerName", ""),
        security_context=given.get("securityContext", {}),
        service_account_name=given.get("serviceAccountName", ""),
        tolerations=tuple(given.get("tolerations", [])),
    )
