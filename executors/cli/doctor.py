"""``doctor``: looks at each precondition of a run's instance, and says how to fix what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast

import click

from executors.api_rules import api_problems
from executors.cli.common import FAILED, cluster_options, config_of, guarded, json_option, print_json
from executors.cli.image_check import CheckResult, examine_image
from executors.cli.room import room_problems
from executors.config import RunConfig
from executors.errors import ConfigError, ProvisionError
from executors.kube import Api, ApiError, ClusterAccess, NotFoundError, connect
from executors.kube.api import NAMESPACES, Kind
from executors.kube.objects import LimitRange, ResourceQuota, Version
from executors.names import PLACE_VARIABLE
from executors.provision.kubernetes.rights import missing_rights, rights_for
from executors.provision.kubernetes.version import OLDEST, parse_version
from executors.provision.local.rundir import base_directory
from executors.render import MiniCluster, Program, pod_patch_problems, render_direct
from executors.spec import MiniClusterSpec, default_document, parse_spec
from executors.validation import direct_problems

_QUOTAS = Kind[ResourceQuota]("v1", "resourcequotas")
_LIMIT_RANGES = Kind[LimitRange]("v1", "limitranges")
_MORE_ROOM = "free some, ask for more, or reduce minicluster.size or the resources of containers"
_CRDS = "/apis/flux-framework.org/v1alpha2"


@click.command()
@cluster_options
@click.option("--image-check", is_flag=True, help="Run a pod of the image to check its Flux and its Snakemake.")
@json_option
@guarded
def doctor(as_json: bool, image_check: bool, **options: Any) -> None:
    """Check what an instance needs, and say how to fix what is missing.

    By default it checks Kubernetes for mode direct: API server, version, namespace, each permission, CRD, room in
    quotas and limit ranges for the size of the config, spec and image. With --provisioner local or attach it checks
    this machine. The exit code is 1 if something is missing.
    """
    config = config_of(options, default="direct")
    here = config.run.provisioner in ("local", "attach")
    found = list(examine_machine(config, os.environ) if here else examine(config))
    if image_check and not here and not any(one.ok is False for one in found):
        found = [one for one in found if one.what != "image"] + list(examine_image(config))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            mark = {True: "ok", False: "MISSING", None: "unknown"}[one.ok]
            click.echo(f"{mark:8} {one.what}: {one.said}")
            if one.ok is not True and one.cure:
                click.echo(f"{'':8} cure: {one.cure}")
    if any(one.ok is False for one in found):
        raise SystemExit(FAILED)


def examine_machine(config: RunConfig, environ: Mapping[str, str]) -> Iterator[CheckResult]:
    """What an instance on this machine needs."""
    attach = config.run.provisioner == "attach"
    try:
        yield CheckResult("private directory", True, str(base_directory(environ)))
    except ProvisionError as err:
        yield CheckResult(
            "private directory", False, str(err), f"set {PLACE_VARIABLE} to a short directory of your own"
        )
    flux = shutil.which("flux", path=environ.get("PATH"))
    needed = attach or config.run.engine == "flux"
    install = "install Flux (docs/install.md), or put its bin directory on PATH"
    if flux is not None:
        yield CheckResult("Flux", True, flux)
    else:
        said = "no flux is on PATH" + ("" if needed else ", so jobs run as local processes (the embedded engine)")
        yield CheckResult("Flux", False if needed else None, said, install)
    if attach:
        uri = environ.get("FLUX_URI", "")
        cure = "run inside `flux start`, `flux alloc` or `flux batch`, or use --provisioner local"
        yield CheckResult("FLUX_URI", bool(uri), uri or "is not set", cure)
    elif flux is not None:
        perl = shutil.which("perl", path=environ.get("PATH"))
        cure = "install perl to get CPU time and memory of jobs under Flux"
        yield CheckResult("perl", True if perl else None, perl or "is not on PATH", cure)


def examine(config: RunConfig) -> Iterator[CheckResult]:
    """Every precondition in order; what makes the others pointless ends the list."""
    mode = config.run.provisioner if config.run.provisioner in ("direct", "operator") else "direct"
    try:
        api = connect(ClusterAccess(config.run.kubeconfig, config.run.context))
    except ConfigError as err:
        yield CheckResult("kubeconfig", False, str(err))
        return
    try:
        yield from _examine_cluster(api, config, mode)
    finally:
        api.close()


def _examine_cluster(api: Api, config: RunConfig, mode: str) -> Iterator[CheckResult]:
    namespace = config.run.namespace or api.namespace
    try:
        version = cast(Version, api.request("GET", "/version"))
    except ApiError as err:
        yield CheckResult("API server", False, str(err), "check the network, and the credentials of the context")
        return
    yield CheckResult("API server", True, f"{api.server} answers")
    yield _version(version, mode)
    if mode == "operator":
        yield _crd(api)
    yield _namespace(api, namespace)
    spec = replace(config.minicluster or parse_spec(default_document()), pod_patch=config.run.pod_patch)
    yield from _rights(api, namespace, mode, spec)
    # Of a run whose name and agent do not matter here.
    cluster, program = MiniCluster("run", namespace, spec), Program(b"", (), config.run.max_lifetime, config.run.ttl)
    problems = _problems(cluster, program, config, mode)
    if not problems:
        yield from _room(api, namespace, cluster, program, mode)
    yield from _spec(cluster, problems)


def _version(found: Version, mode: str) -> CheckResult:
    text = str(found.get("gitVersion") or found)
    try:
        version = parse_version(found)
    except (KeyError, ValueError):
        return CheckResult("Kubernetes version", None, text)
    good = version >= OLDEST or mode == "operator"
    cure = "direct mode needs 1.31 or newer; use --provisioner operator with the Flux Operator"
    return CheckResult("Kubernetes version", good, text, "" if good else cure)


def _crd(api: Api) -> CheckResult:
    try:
        kinds = [one["kind"] for one in api.request("GET", _CRDS)["resources"]]
    except NotFoundError:
        kinds = []
    except ApiError as err:
        return CheckResult("MiniCluster CRD", None, str(err))
    there = "MiniCluster" in kinds
    said = "flux-framework.org/v1alpha2 is served" if there else "flux-framework.org/v1alpha2 is not served"
    return CheckResult(
        "MiniCluster CRD", there, said, "ask an administrator to install the Flux Operator, or use --provisioner direct"
    )


def _namespace(api: Api, namespace: str) -> CheckResult:
    try:
        api.get(NAMESPACES, None, namespace)
    except NotFoundError:
        return CheckResult("namespace", False, f"{namespace} does not exist", "create it, or use another --namespace")
    except ApiError as err:  # most users may not look at namespaces
        return CheckResult("namespace", None, f"{namespace}: {err}", "nothing to fix if you may use it")
    return CheckResult("namespace", True, namespace)


def _rights(api: Api, namespace: str, mode: str, spec: MiniClusterSpec) -> Iterator[CheckResult]:
    rights = rights_for(mode, spec)
    try:
        missing = missing_rights(api, namespace, rights)
    except ApiError as err:
        yield CheckResult("rights", None, str(err))
        return
    for right in rights:
        for verb in right.verbs:
            ok = (verb, right) not in missing
            cure = f"ask to have the Role of docs/rbac-{mode}.yaml bound to you in the namespace {namespace}"
            yield CheckResult(f"may {verb} {right.resource}", ok, f"in the namespace {namespace}", "" if ok else cure)


def _room(api: Api, namespace: str, cluster: MiniCluster, program: Program, mode: str) -> Iterator[CheckResult]:
    """Whether quotas and limit ranges leave room for the size that is wanted."""
    try:
        quotas = api.list(_QUOTAS, namespace)["items"]
        ranges = api.list(_LIMIT_RANGES, namespace)["items"]
    except ApiError as err:
        cure = "only this check needs it; later, pods that do not fit are refused with the reason"
        yield CheckResult("quota", None, str(err), cure)
        return
    if not quotas and not ranges:
        yield CheckResult("quota", True, "there are no quotas and no limit ranges")
        return
    spec = cluster.spec
    manifests = render_direct(cluster, program, "")
    if mode == "operator":  # of it, the operator's own objects for the same pods
        manifests = [*(manifest for manifest in manifests if manifest["kind"] != "Secret"), {"kind": "MiniCluster"}]
    problems = room_problems(manifests, spec.size, quotas, ranges)
    least = spec.min_size or spec.size
    text = "; ".join(problems)
    if problems and least < spec.size and not room_problems(manifests, least, quotas, ranges):
        yield CheckResult("quota", None, f"room for minSize {least}, not for size {spec.size}: {text}", _MORE_ROOM)
    elif problems:
        yield CheckResult("quota", False, f"no room for {spec.size} pod{'s' * (spec.size > 1)}: {text}", _MORE_ROOM)
    else:
        more = room_problems(manifests, spec.max_size, quotas, ranges)
        said = f"room for {spec.size} pod{'s' * (spec.size > 1)}"
        yield CheckResult(
            "quota", True, f"{said}; not for maxSize {spec.max_size}: {'; '.join(more)}" if more else said
        )


def _spec(cluster: MiniCluster, problems: list[str]) -> Iterator[CheckResult]:
    spec = cluster.spec
    said = (
        "; ".join(problems)
        or f"{spec.size} pod{'s' if spec.size > 1 else ''} of {spec.flux_container.image or 'the default image'}"
    )
    yield CheckResult("spec", not problems, said)
    uses_view = not spec.flux.container.disable
    yield CheckResult(
        "image",
        None if not uses_view else True,
        "contains its own Flux, which only a running pod shows" if not uses_view else "Flux comes by the view",
        "flux-minicluster doctor --image-check runs one" if not uses_view else "",
    )


def _problems(cluster: MiniCluster, program: Program, config: RunConfig, mode: str) -> list[str]:
    if mode == "operator":
        refused = ["run.podPatch: the provisioner operator does not support it"] if config.run.pod_patch else []
        return [*api_problems(cluster.spec), *refused]
    return direct_problems(cluster.spec) or pod_patch_problems(cluster, program)


COMMANDS: Sequence[click.Command] = (doctor,)
