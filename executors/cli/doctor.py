"""``doctor``: looks at each precondition of a MiniCluster on Kubernetes, and says how to mend what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from executors.cli.common import FAILED, cluster_options, config_of, guarded, json_option, print_json
from executors.config import RunConfig
from executors.errors import ConfigError
from executors.kube import Api, ApiError, ClusterAccess, NotFoundError, connect
from executors.kube.api import Kind
from executors.provision.rights import RIGHTS, missing_rights
from executors.spec import default_document, parse_spec
from executors.validation import direct_problems

_OLDEST = (1, 31)
_QUOTAS = Kind("v1", "resourcequotas")
_CRDS = "/apis/flux-framework.org/v1alpha2"


@dataclass(frozen=True)
class Finding:
    """One precondition. ``ok`` None: it could not be told."""

    what: str
    ok: bool | None
    said: str
    cure: str = ""


@click.command()
@cluster_options
@json_option
@guarded
def doctor(as_json: bool, **options: Any) -> None:
    """Check what a MiniCluster needs: API server, version, rights, CRD, quota, spec and image."""
    found = list(examine(config_of(options)))
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


def examine(config: RunConfig) -> Iterator[Finding]:
    """Every precondition in order; what makes the others pointless ends the list."""
    mode = config.run.provisioner if config.run.provisioner in ("direct", "operator") else "direct"
    try:
        api = connect(ClusterAccess(config.run.kubeconfig, config.run.context))
    except ConfigError as err:
        yield Finding("kubeconfig", False, str(err))
        return
    namespace = config.run.namespace or api.namespace
    try:
        version = api.request("GET", "/version")
    except ApiError as err:
        yield Finding("API server", False, str(err), "check the network, and the credentials of the context")
        return
    yield Finding("API server", True, f"{api.server} answers")
    yield _version(version, mode)
    if mode == "operator":
        yield _crd(api)
    yield from _rights(api, namespace, mode)
    yield _quota(api, namespace)
    yield from _spec(config, mode)


def _version(found: dict[str, Any], mode: str) -> Finding:
    text = str(found.get("gitVersion") or found)
    try:
        version = (int(found["major"]), int(str(found["minor"]).rstrip("+")))
    except (KeyError, ValueError):
        return Finding("Kubernetes version", None, text)
    good = version >= _OLDEST or mode == "operator"
    cure = "direct mode needs 1.31 or newer; use --provisioner operator with the Flux Operator"
    return Finding("Kubernetes version", good, text, "" if good else cure)


def _crd(api: Api) -> Finding:
    try:
        kinds = [one["kind"] for one in api.request("GET", _CRDS)["resources"]]
    except NotFoundError:
        kinds = []
    except ApiError as err:
        return Finding("MiniCluster CRD", None, str(err))
    there = "MiniCluster" in kinds
    said = "flux-framework.org/v1alpha2 is served" if there else "flux-framework.org/v1alpha2 is not served"
    return Finding("MiniCluster CRD", there, said, "have the Flux Operator installed, or use --provisioner direct")


def _rights(api: Api, namespace: str, mode: str) -> Iterator[Finding]:
    try:
        missing = missing_rights(api, namespace, mode)
    except ApiError as err:
        yield Finding("rights", None, str(err))
        return
    for right in RIGHTS[mode]:
        for verb in right.verbs:
            ok = (verb, right) not in missing
            cure = f"have the Role of docs/rbac-{mode}.yaml bound to you in the namespace {namespace}"
            yield Finding(f"may {verb} {right.resource}", ok, f"in the namespace {namespace}", "" if ok else cure)


def _quota(api: Api, namespace: str) -> Finding:
    try:
        quotas = api.list(_QUOTAS, namespace)["items"]
    except ApiError as err:
        return Finding(
            "quota", None, str(err), "only needed to see it beforehand; pods over a quota are refused with it"
        )
    full = []
    for quota in quotas:
        hard, used = quota["status"].get("hard", {}), quota["status"].get("used", {})
        full += [f"{name} {used.get(name)} of {hard[name]}" for name in hard if used.get(name) == hard[name] != "0"]
    if full:
        return Finding("quota", False, f"used up: {', '.join(full)}", "end what uses it, or ask for more")
    return Finding("quota", True, f"{len(quotas)} quotas, none of them used up")


def _spec(config: RunConfig, mode: str) -> Iterator[Finding]:
    spec = config.minicluster or parse_spec(default_document())
    problems = direct_problems(spec) if mode == "direct" else []
    said = "; ".join(problems) or f"{spec.size} pods of {spec.flux_container.image or 'the default image'}"
    yield Finding("spec", not problems, said)
    uses_view = not spec.flux.container.disable
    yield Finding(
        "image",
        None if not uses_view else True,
        "brings its own Flux, which is only seen when a pod runs" if not uses_view else "Flux comes by the view",
        "flux-minicluster run --config FILE -- flux version   (0.70 or newer)" if not uses_view else "",
    )


COMMANDS: Sequence[click.Command] = (doctor,)
