"""What of an API server's answers passes, and how long one request waits for that. The one place that says so."""

from __future__ import annotations

import logging
import random
import time

from executors.kube.errors import ApiError

log = logging.getLogger(__name__)

#: Seconds for which a request is made again.
LIMIT = 60.0
#: The same where nobody has ever answered: more likely a wrong address than a server that restarts.
NOBODY_LIMIT = 3.0
_FIRST, _LONGEST = 0.1, 2.0
#: Seconds after which somebody who waits is told why.
_SILENT = 3.0


class Patience:
    """For one request. Waits between its attempts, as long as the server says (Retry-After), else longer each time."""

    def __init__(self, limit: float = LIMIT) -> None:
        self._begin = time.monotonic()
        self._limit = limit
        self._delay = _FIRST
        self._told = False

    def after(self, err: ApiError, limit: float = LIMIT) -> None:
        """Wait until it is time for the next attempt. Raises ``err`` where none would help, or the limit is reached."""
        if not err.passing:
            raise err
        waited = time.monotonic() - self._begin
        left = min(limit, self._limit) - waited
        wait = max(err.retry_after or 0.0, self._delay * random.uniform(1.0, 1.5))
        if left <= 0 or (wait > left and err.retry_after is not None):
            raise err.after_waiting(waited)
        if waited + wait > _SILENT and left > _SILENT and not self._told:
            self._told = True
            log.warning("waiting for the Kubernetes API server (%.0f s more at most): %s", left, err)
        # Nothing tells a client when a server is better: it has to ask again.
        time.sleep(min(wait, left))
        self._delay = min(self._delay * 2, _LONGEST)
