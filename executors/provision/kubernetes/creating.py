"""Creating one object where a ResourceQuota is full at the moment: what used it may just be on its way out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from executors.kube import Api, ForbiddenError, Kind

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Seconds between two attempts. Who may create need not see quotas, so nothing can be watched.
_PAUSE = 1.0


def create(
    api: Api, kind: Kind[T], namespace: str, manifest: Mapping[str, Any], limit: float, *, strict: bool = False
) -> T:
    """As `Api.create`, but a quota that is used up is given ``limit`` seconds. Raises ApiError."""
    deadline = time.monotonic() + limit
    told = False
    while True:
        try:
            return api.create(kind, namespace, manifest, strict=strict)
        except ForbiddenError as err:
            # Kubernetes' own words (plugin/pkg/admission/resourcequota): there is no reason for it.
            if "exceeded quota" not in err.message or time.monotonic() + _PAUSE > deadline:
                raise
            if not told:
                log.warning("waiting for the quota, %g s at most (run.scheduleTimeout): %s", limit, err)
                told = True
            time.sleep(_PAUSE)
