"""Operator mode: the MiniCluster resource, with the agent brought in by a ConfigMap."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import math
import shlex
from typing import Any

from executors.render import names
from executors.render.minicluster import MiniCluster, Program
from executors.render.objects import Manifest, manifest
from executors.schema import MINICLUSTER_API_VERSION
from executors.spec import DEFAULT_IMAGE

#: Where upstream's pods find the agent.
_AGENT_MOUNT = "/flux_agent"
_AGENT_FILE = "agent.pyz"
OPERATOR_AGENT = f"{_AGENT_MOUNT}/{_AGENT_FILE}"
#: What of a container's says what runs in it.
_REPLACED = ("batch", "batchRaw", "command", "logs")


def render_resource(cluster: MiniCluster, program: Program) -> list[Manifest]:
    """The ConfigMap that holds the agent, and the MiniCluster, which is to own it.

    The spec goes to the operator word for word, but for what makes its lead broker run the agent.
    """
    name = names.agent_config_map_name(cluster)
    holder = manifest(
        "v1",
        "ConfigMap",
        name,
        cluster,
        immutable=True,
        data={names.SHELL_KEY: program.shell_text},
        binaryData={_AGENT_FILE: base64.b64encode(program.agent).decode()},
    )
    spec = copy.deepcopy(dict(cluster.spec.document))
    spec["interactive"] = False
    if program.max_lifetime:
        given = spec.get("deadlineSeconds")
        lifetime = math.ceil(program.max_lifetime)
        spec["deadlineSeconds"] = lifetime if given is None else min(given, lifetime)
    container = spec["containers"][cluster.spec.flux_index]
    for key in _REPLACED:
        container.pop(key, None)
    container.get("commands", {}).pop("script", None)
    container.setdefault("image", DEFAULT_IMAGE)
    container["launcher"] = True
    view = spec.get("flux", {}).get("container", {})
    if view.get("disable"):
        # Upstream's init container runs all the same, to write the brokers' configuration; a shell is all it needs.
        view.setdefault("image", container["image"])
    # Upstream's operator puts it into a shell text, so every word that is not plain is quoted.
    container["command"] = shlex.join(["flux", "python", OPERATOR_AGENT, "supervise", *program.arguments])
    # Upstream names the volume after the ConfigMap and the mount after this key: they have to be the same.
    items = {key: key for key in (_AGENT_FILE, names.SHELL_KEY)}
    volume = {"configMapName": name, "path": _AGENT_MOUNT, "items": items}
    container["volumes"] = {**container.get("volumes", {}), name: volume}
    resource = manifest(MINICLUSTER_API_VERSION, "MiniCluster", cluster.name, cluster, spec=spec)
    resource["metadata"]["annotations"] = {
        **cluster.annotations,
        names.HASH_ANNOTATION: _hash([spec, holder["data"], holder["binaryData"]]),
    }
    return [holder, resource]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
