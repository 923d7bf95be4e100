"""Security contexts: the spec's own, whole, over defaults that pass Kubernetes' restricted pod security standard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executors.render.minicluster import PodUser

#: The user that pods run as unless the spec says otherwise.
DEFAULT_UID = 1000


def pod_security(given: Mapping[str, Any], user: PodUser | None = None, *, restricted: bool = True) -> dict[str, Any]:
    """A pod's securityContext; ``user``: whose it is where the spec does not say. Not ``restricted``: as given."""
    if not restricted:
        return dict(given)
    made: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if "runAsUser" not in given:
        made["runAsUser"] = user.uid if user is not None else DEFAULT_UID
        made["runAsGroup"] = user.gid if user is not None else DEFAULT_UID
        if user is not None and user.groups:
            made["supplementalGroups"] = list(user.groups)
    made["runAsNonRoot"] = given.get("runAsUser") != 0
    return {**made, **given}


def container_security(given: Mapping[str, Any], *, restricted: bool = True) -> dict[str, Any]:
    """A container's securityContext. The API server refuses some of our defaults beside some wishes."""
    if not restricted:
        return dict(given)
    made: dict[str, Any] = {}
    added = given.get("capabilities", {}).get("add", [])
    if given.get("runAsUser") == 0:
        made["runAsNonRoot"] = False
    if not given.get("privileged"):
        if not {"SYS_ADMIN", "CAP_SYS_ADMIN"} & set(added):
            made["allowPrivilegeEscalation"] = False
        made["capabilities"] = {"drop": ["ALL"]}
    made.update(given)
    if "capabilities" in given and not given.get("privileged"):
        made["capabilities"] = {"drop": ["ALL"], **given["capabilities"]}
    return made
