"""Whether a cluster's Kubernetes is new enough for the Jobs that are rendered."""

from __future__ import annotations

from typing import cast

from executors.errors import ProvisionError
from executors.kube import Api
from executors.kube.objects import Version

#: ``successPolicy`` and ``backoffLimitPerIndex`` are on by default since then.
OLDEST = (1, 31)


def check_version(api: Api, who_needs: str, cure: str) -> None:
    """Raises ProvisionError where Jobs lack a field that is rendered, ApiError."""
    found = cast(Version, api.request("GET", "/version"))
    try:
        version = parse_version(found)
    except (KeyError, ValueError):
        raise ProvisionError(f"{api.server} does not answer like a Kubernetes API server: {found!r}") from None
    if version < OLDEST:
        raise ProvisionError(
            f"Kubernetes {version[0]}.{version[1]} at {api.server} is too old for {who_needs} "
            f"successPolicy and backoffLimitPerIndex, of {OLDEST[0]}.{OLDEST[1]} or newer; {cure}"
        )


def parse_version(answer: Version) -> tuple[int, int]:
    """Returns major and minor of what ``/version`` answers; some vendors write ``31+``. Raises KeyError, ValueError."""
    return int(answer["major"]), int(str(answer["minor"]).rstrip("+"))
