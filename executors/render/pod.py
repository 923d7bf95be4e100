"""The pods: brokers (the Job's template) and services."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from executors.api_rules import is_below, plain_path
from executors.render import entry, names
from executors.render.broker import broker_command, brokers_wanted, job_waits
from executors.render.command import command_words, initial_program, jobspec
from executors.render.minicluster import MiniCluster, Profile, Program
from executors.render.patch import patched
from executors.render.places import MOUNTED, UNMOUNTED, PodPaths, has_texts, places_for
from executors.render.security import container_security, pod_security
from executors.render.volumes import mounts_of, volumes_of
from executors.spec import DEFAULT_IMAGE, Container

#: Seconds between the wish that a pod ends and its killing. Brokers need about 2; jobs that trap TERM the rest.
GRACE_PERIOD = 10
#: When the kubelet ends a lead whose agent does not answer: after two minutes, since a busy node is slow and not dead.
LIVENESS: dict[str, int] = {
    "initialDelaySeconds": 30,
    "periodSeconds": 30,
    "timeoutSeconds": 15,
    "failureThreshold": 4,
}

#: When the kubelet asks whether a resource's instance runs: as soon as the container does, and until it does; an answer
#: takes as long as the instance does, up to 10 seconds. An instance may wait for its brokers for as long as it has to.
STARTUP: dict[str, int] = {"periodSeconds": 1, "timeoutSeconds": 15, "failureThreshold": 2**31 - 1}
#: The same, only where a pod goes on when its broker has ended: it is a program in each pod, beside ranks that wait for
#: each other.
READINESS: dict[str, int] = {"periodSeconds": 10, "timeoutSeconds": 15, "failureThreshold": 1}

#: Of the ConfigMap: the agent as a text.
AGENT_KEY = "agent.base64"
AGENT_REST_KEY = "agent.base64.rest"
#: Characters of a variable. Linux takes 128 KiB as one, with its name.
LONGEST_VARIABLE = 96 * 1024
_STATE_VOLUME = "flux-state"
_SECRET_VOLUME = "flux-curve"
_VIEW_VOLUME = "flux-view"
_WISH_VOLUME = "flux-wish"
_MUNGE_VOLUME = "flux-munge"
#: Where munged looks for its key, munge.key.
_MUNGE = "/etc/munge"
#: Cluster Autoscaler and Karpenter leave such pods where they are.
_STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
_FAILURES_FIELD = "metadata.annotations['batch.kubernetes.io/job-index-failure-count']"


def pod_template(cluster: MiniCluster, program: Program | None, labels: Mapping[str, str]) -> dict[str, Any]:
    """The Job's pod template. ``labels`` are those of every object."""
    made = patched(unpatched_template(cluster, program, labels), cluster.spec.pod_patch)
    return _with_host_network(cluster, program, made) if made["spec"].get("hostNetwork") else made


def unpatched_template(cluster: MiniCluster, program: Program | None, labels: Mapping[str, str]) -> dict[str, Any]:
    """The same before ``run.podPatch``."""
    spec = cluster.spec
    main = spec.flux_container
    sidecars = [_sidecar(cluster, at, one) for at, one in enumerate(spec.containers) if one is not main]
    made = _pod_spec(cluster)
    made |= {
        "containers": [_main(cluster, program)],
        "restartPolicy": "Never",
        "subdomain": names.service_name(cluster),
        "shareProcessNamespace": spec.share_process_namespace,
    }
    volumes = [*_own_volumes(cluster, places_for(cluster, program)), *volumes_of(spec.containers)]
    if volumes:
        made["volumes"] = volumes
    init = ([] if spec.flux.container.disable else [_view(cluster)]) + sidecars
    if init:
        made["initContainers"] = init
    secrets = [container.image_pull_secret for container in spec.containers]
    if not spec.flux.container.disable:
        secrets.append(spec.flux.container.image_pull_secret)
    _pull_secrets(made, secrets)
    affinity = _affinity(cluster)
    if affinity:
        made["affinity"] = affinity
    metadata = {
        "labels": {**spec.job_labels, **spec.pod.labels, **labels},
        "annotations": {**_STAY, **spec.pod.annotations},
    }
    return {"metadata": metadata, "spec": made}


def _with_host_network(cluster: MiniCluster, program: Program | None, template: dict[str, Any]) -> dict[str, Any]:
    """What a patch with hostNetwork needs besides: Services' names, brokers that are not called as their nodes are, and
    never two of them, which have one port, on one node."""
    spec = template["spec"]
    [main] = spec["containers"]
    command = list(main["command"])
    config = places_for(cluster, program).broker_config
    # Kubernetes puts the variable's value in its place.
    command.insert(command.index(config) + 1, f"-Shostname={cluster.name}-$(JOB_COMPLETION_INDEX)")
    ports = [*main.get("ports", []), {"containerPort": names.BROKER_PORT, "protocol": "TCP"}]
    main = {**main, "command": command, "ports": list({port["containerPort"]: port for port in ports}.values())}
    return {**template, "spec": {"dnsPolicy": "ClusterFirstWithHostNet", **spec, "containers": [main]}}


def services_pod(cluster: MiniCluster, labels: Mapping[str, str]) -> dict[str, Any] | None:
    """The pod of ``services``, reached by its host name; None where there are none."""
    spec = cluster.spec
    if not spec.services:
        return None
    name = names.services_pod_name(cluster)
    offset = len(spec.containers)
    made = _pod_spec(cluster)
    volumes = volumes_of(spec.services)
    if any(_wrapped(service) for service in spec.services):
        volumes = [_files_volume(cluster), {"name": _STATE_VOLUME, "emptyDir": {}}, *volumes]
    made |= {
        "containers": [_beside(cluster, offset + at, one, has_flux=False) for at, one in enumerate(spec.services)],
        "restartPolicy": "OnFailure",
        "hostname": names.services_host_name(cluster),
        "subdomain": names.service_name(cluster),
    }
    if volumes:
        made["volumes"] = volumes
    _pull_secrets(made, [service.image_pull_secret for service in spec.services])
    metadata = {
        "name": name,
        "namespace": cluster.namespace,
        "labels": {**labels, "job-name": cluster.name, "job-index": "services"},
        "annotations": dict(_STAY),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": made}


def _pod_spec(cluster: MiniCluster) -> dict[str, Any]:
    pod = cluster.spec.pod
    made: dict[str, Any] = {
        "automountServiceAccountToken": pod.automount_service_account_token,
        "securityContext": pod_security(pod.security_context, cluster.user, restricted=cluster.profile.restricted),
        "terminationGracePeriodSeconds": GRACE_PERIOD,
    }
    wishes: dict[str, Any] = {
        "dnsPolicy": pod.dns_policy,
        "hostIPC": pod.host_ipc,
        "hostPID": pod.host_pid,
        "nodeSelector": dict(pod.node_selector),
        "runtimeClassName": pod.runtime_class_name,
        "schedulerName": pod.scheduler_name,
        "serviceAccountName": pod.service_account_name,
        "tolerations": [dict(one) for one in pod.tolerations],
    }
    return {**made, **{name: value for name, value in wishes.items() if value}}


def _pull_secrets(made: dict[str, Any], secrets: list[str]) -> None:
    found = [{"name": name} for name in dict.fromkeys(secrets) if name]
    if found:
        made["imagePullSecrets"] = found


def _affinity(cluster: MiniCluster) -> dict[str, Any]:
    """Near each other, but one node each where there is room; and on the nodes that the spec names."""
    spec = cluster.spec
    made: dict[str, Any] = {}
    if not spec.disable_affinity:
        made["podAffinity"] = _preferred(cluster, "topology.kubernetes.io/zone")
        made["podAntiAffinity"] = _preferred(cluster, "kubernetes.io/hostname")
    if spec.pod.node_affinity:
        expressions = [
            {"key": key, "operator": "In", "values": list(values)} for key, values in spec.pod.node_affinity.items()
        ]
        terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        made["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    return made


def _preferred(cluster: MiniCluster, topology: str) -> dict[str, Any]:
    expression = {"key": names.NAME_LABEL, "operator": "In", "values": [cluster.name]}
    term = {"labelSelector": {"matchExpressions": [expression]}, "topologyKey": topology}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


# -- containers


def _container(name: str, container: Container, profile: Profile) -> dict[str, Any]:
    """What all containers of the user's have in common."""
    made: dict[str, Any] = {
        "name": name,
        "image": container.image or DEFAULT_IMAGE,
        "imagePullPolicy": container.image_pull_policy,
        "resources": _resources(container.resources.requests, container.resources.limits),
        "securityContext": container_security(container.security_context, restricted=profile.restricted),
    }
    if container.working_dir:
        made["workingDir"] = container.working_dir
    if container.ports:
        made["ports"] = [{"containerPort": port, "protocol": "TCP"} for port in container.ports]
    hooks = {"postStart": container.post_start, "preStop": container.pre_stop}
    lifecycle = {name: {"exec": {"command": ["/bin/sh", "-c", text]}} for name, text in hooks.items() if text}
    if lifecycle:
        made["lifecycle"] = lifecycle
    return made


def _resources(requests: Mapping[str, str | int], limits: Mapping[str, str | int]) -> dict[str, Any]:
    found = {"requests": requests, "limits": limits}
    return {name: {key: str(amount) for key, amount in given.items()} for name, given in found.items() if given}


def _env(container: Container, common: Mapping[str, str], ours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Environment in an order that does not depend on the spec's."""
    wanted = {name: value for name, value in ours.items() if value}
    plain = {**common, **container.environment, **wanted}
    made: list[dict[str, Any]] = [{"name": name, "value": plain[name]} for name in sorted(plain)]
    for name in sorted(container.secrets):
        secret, key = container.secrets[name]
        made.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return made


def _view_variables(cluster: MiniCluster) -> dict[str, str]:
    view = cluster.spec.flux.container
    if view.disable:
        return {}
    return {entry.VIEW: view.mount_path, "PYTHONPATH": view.python_path}


def _main(cluster: MiniCluster, program: Program | None) -> dict[str, Any]:
    spec = cluster.spec
    container = spec.flux_container
    places = places_for(cluster, program)
    made = _container(names.flux_container_name(cluster), container, cluster.profile)
    made["command"] = _entry(places, container, "broker", broker_command(cluster, program))
    ours = {
        # For users that look into the pod; the entry script takes it away from the broker.
        "FLUX_URI": places.broker_uri,
        entry.ROOT: places.root,
        entry.TEXTS: places.texts,
        entry.CONTAINER: str(spec.flux_index),
        entry.ARCHIVE: spec.archive_path,
        entry.STRICT: "1" if spec.logging.strict else "",
        entry.SERVES: "1" if program is not None else "",
        entry.TIMED: "1" if spec.logging.timed else "",
        # The agent has ended all jobs by then; see `provision.local`.
        "FLUX_DISABLE_JOB_CLEANUP": "1" if program is not None else "",
        **_view_variables(cluster),
    }
    if cluster.profile.of_resource:
        ours |= _resource_variables(cluster)
        if job_waits(cluster):
            [text] = _plain([jobspec(spec)])
            ours |= {entry.QUORUM: str(brokers_wanted(spec)), entry.JOB: text}
    failures = {"name": entry.FAILURES, "valueFrom": {"fieldRef": {"fieldPath": _FAILURES_FIELD}}}
    made["env"] = [*_env(container, spec.flux.environment, ours), failures]
    mounts = [*_own_mounts(cluster, places), *mounts_of(container)]
    if mounts:
        made["volumeMounts"] = mounts
    if places is not MOUNTED:
        made["env"] += _texts(cluster, program)
    if program is not None:
        made["livenessProbe"] = {"exec": {"command": entry.call("probe")}, **LIVENESS}
    if cluster.profile.of_resource:
        # By whichever way our script comes; a file of it may not be written yet.
        ready = {"exec": {"command": entry.call("ready")}}
        made["startupProbe"] = {**ready, **STARTUP}
        if container.commands.post or spec.archive_path:  # by which a pod may outlive its broker for long
            made["readinessProbe"] = {**ready, **READINESS}
    return made


def _resource_variables(cluster: MiniCluster) -> dict[str, str]:
    flux = cluster.spec.document.get("flux", {})
    main = cluster.spec.flux_container
    leaves_jobs = main.launcher or not initial_program(cluster.spec, None, cluster.profile)
    return {
        # Half a second: a command that is Flux's own job leaves no other behind, nor do a batch's, and when a lead is
        # told to end its entry script ends them.
        "FLUX_DISABLE_JOB_CLEANUP": "" if leaves_jobs else "1",
        entry.RESOURCE: "1",
        entry.SHARED: cluster.spec.flux.container.mount_path if _is_shared(cluster) else "",
        entry.COMPLETE: "1" if flux.get("completeWorkers") else "",
        entry.NO_SOCKET: "1" if flux.get("disableSocket") else "",
    }


def _munge_secret(cluster: MiniCluster) -> str:
    """The name of a resource's Secret with a munge key; "" where there is none."""
    return str(cluster.spec.document.get("flux", {}).get("mungeSecret") or "") if cluster.profile.of_resource else ""


def _may_shrink(cluster: MiniCluster) -> bool:
    return cluster.profile.of_resource and cluster.spec.max_size > 1


def _is_shared(cluster: MiniCluster) -> bool:
    """Whether pods have the directory in which upstream's users look for the socket and for what they source."""
    view = cluster.spec.flux.container
    if not view.disable:
        return True
    place = plain_path(view.mount_path)
    taken = [plain_path(volume.path) for one in cluster.spec.containers for volume in one.volumes]
    return cluster.profile.of_resource and not any(one == place or is_below(one, [place]) for one in taken)


def _texts(cluster: MiniCluster, program: Program | None) -> list[dict[str, Any]]:
    """Our files as variables, where they are not mounted."""
    config = names.config_map_name(cluster)
    keys = {entry.ENTRY: "entry.sh", entry.BROKER: "broker.toml"}
    if program is not None:
        keys |= {entry.AGENT: AGENT_KEY, entry.AGENT_REST: AGENT_REST_KEY, entry.SHELL: names.SHELL_KEY}
    made = [
        {"name": name, "valueFrom": {"configMapKeyRef": {"name": config, "key": key}}} for name, key in keys.items()
    ]
    certificate = {"name": names.secret_name(cluster), "key": names.CERTIFICATE_KEY}
    return [*made, {"name": entry.CURVE, "valueFrom": {"secretKeyRef": certificate}}]


def _sidecar(cluster: MiniCluster, at: int, container: Container) -> dict[str, Any]:
    """A container beside the broker's, as one of Kubernetes' own sidecars: it ends when the broker's container ends."""
    return {**_beside(cluster, at, container, has_flux=True), "restartPolicy": "Always"}


def _beside(cluster: MiniCluster, at: int, container: Container, *, has_flux: bool) -> dict[str, Any]:
    made = _container(container.name, container, cluster.profile)
    mounts = _view_mounts(cluster) if has_flux else []
    if has_flux and cluster.profile.of_resource and not _wrapped(container):
        mounts = [_state_mount(), *mounts]  # where the shared socket leads to
    ours: dict[str, str] = {}
    if _wrapped(container):
        made["command"] = _entry(MOUNTED, container, "beside", command_words(container.command))
        ours = {entry.CONTAINER: str(at), entry.STRICT: "1" if cluster.spec.logging.strict else ""}
        mounts = [_files_mount(cluster), _state_mount(), *mounts]
        if has_flux:
            ours |= {"FLUX_URI": MOUNTED.broker_uri, **_view_variables(cluster)}
            ours |= {entry.NO_WAIT: "1" if cluster.spec.flux.no_wait_socket else ""}
    elif container.command:
        made["command"] = _plain(command_words(container.command))
    env = _env(container, cluster.spec.flux.environment if has_flux else {}, ours)
    if env:
        made["env"] = env
    mounts += mounts_of(container)
    if mounts:
        made["volumeMounts"] = mounts
    return made


def _wrapped(container: Container) -> bool:
    """Whether ours is what runs in it; else its image's own entry does."""
    return not container.no_wrap_entrypoint and (bool(container.command) or has_texts(container.commands))


def _entry(places: PodPaths, container: Container, role: str, words: list[str]) -> list[str]:
    if places is not MOUNTED:
        return entry.call(role, *_plain(words))
    shell = "/bin/bash" if has_texts(container.commands) else "/bin/sh"
    return [shell, MOUNTED.entry, role, *_plain(words)]


def _plain(words: list[str]) -> list[str]:
    """Kubernetes itself would replace $(NAME) in a command or a variable; $$ stands for $."""
    return [word.replace("$", "$$") for word in words]


def _view(cluster: MiniCluster) -> dict[str, Any]:
    view = cluster.spec.flux.container
    made: dict[str, Any] = {
        "name": view.name,
        "image": view.image,
        "imagePullPolicy": "Always" if view.pull_always else "IfNotPresent",
        "command": ["/bin/sh", MOUNTED.entry, "view"],
        "env": [{"name": entry.VIEW, "value": view.mount_path}],
        "resources": _resources(view.resources.requests, view.resources.limits),
        "securityContext": container_security(view.security_context, restricted=cluster.profile.restricted),
        "volumeMounts": [_files_mount(cluster), {"name": _VIEW_VOLUME, "mountPath": view.mount_path}],
    }
    if view.working_dir:
        made["workingDir"] = view.working_dir
    return made


# -- our own volumes


def _own_volumes(cluster: MiniCluster, places: PodPaths) -> list[dict[str, Any]]:
    """All that is not below ``places``' roots."""
    if places is UNMOUNTED:
        return []
    made: list[dict[str, Any]] = [{"name": _STATE_VOLUME, "emptyDir": {}}]
    if places is MOUNTED:
        # Without fsGroup it is root's, so that its readers need the mode; only the broker's container mounts it.
        secret = {"secretName": names.secret_name(cluster), "defaultMode": 0o444}
        made = [_files_volume(cluster), *made, {"name": _SECRET_VOLUME, "secret": secret}]
    if _is_shared(cluster):
        made.append({"name": _VIEW_VOLUME, "emptyDir": {}})
    if _munge_secret(cluster):
        secret = {"secretName": _munge_secret(cluster), "defaultMode": 0o400}
        made.append({"name": _MUNGE_VOLUME, "secret": secret})
    if _may_shrink(cluster):
        field = {"fieldPath": f"metadata.annotations['{names.WISH_ANNOTATION}']"}
        items = [{"path": posixpath.basename(MOUNTED.wish), "fieldRef": field}]
        made.append({"name": _WISH_VOLUME, "downwardAPI": {"items": items}})
    return made


def _own_mounts(cluster: MiniCluster, places: PodPaths) -> list[dict[str, Any]]:
    """Those of the broker's container."""
    if places is UNMOUNTED:
        return []
    made = [_state_mount(), *_view_mounts(cluster)]
    if places is MOUNTED:
        secret = {"name": _SECRET_VOLUME, "mountPath": MOUNTED.secret, "readOnly": True}
        made = [_files_mount(cluster), *made, secret]
    if _munge_secret(cluster):
        made.append({"name": _MUNGE_VOLUME, "mountPath": _MUNGE, "readOnly": True})
    if _may_shrink(cluster):
        made.append({"name": _WISH_VOLUME, "mountPath": posixpath.dirname(MOUNTED.wish), "readOnly": True})
    return made


def _files_volume(cluster: MiniCluster) -> dict[str, Any]:
    source = {"name": names.config_map_name(cluster), "defaultMode": 0o555}
    return {"name": names.files_volume_name(cluster), "configMap": source}


def _files_mount(cluster: MiniCluster) -> dict[str, Any]:
    return {"name": names.files_volume_name(cluster), "mountPath": MOUNTED.files, "readOnly": True}


def _state_mount() -> dict[str, Any]:
    return {"name": _STATE_VOLUME, "mountPath": MOUNTED.state}


def _view_mounts(cluster: MiniCluster) -> list[dict[str, Any]]:
    view = cluster.spec.flux.container
    if not _is_shared(cluster):
        return []
    shared = {"name": _VIEW_VOLUME, "mountPath": view.mount_path}
    if view.disable:
        return [shared]
    return [
        shared,
        # Where the view's programs look for their libraries.
        {"name": _VIEW_VOLUME, "mountPath": "/opt/software", "subPath": "software"},
    ]
