"""When an agent that nobody uses ends itself. Pure: a clock goes in, a decision comes out.

Two limits: seconds without a client and without a job (idle), and seconds without a client, whatever runs (orphan).
"""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional

#: Seconds for a first client, where the one that has started the instance is gone already.
UNWANTED = 10.0
#: Seconds between two looks, at least.
_RESOLUTION = 0.05


class Decision(NamedTuple):
    """``end``: the reason to end now, or None. ``look_again``: seconds until a limit can be reached; None: never."""

    end: Optional[str]
    look_again: Optional[float]


class Watchdog:
    """``clock`` tells seconds; so are the limits, and 0 or less turns one off."""

    def __init__(self, clock: Callable[[], float], idle_timeout: float, orphan_timeout: float) -> None:
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._orphan_timeout = orphan_timeout
        self._last_client = self._last_use = clock()

    def client_is_here(self) -> None:
        """Up to this moment a client was here."""
        self._last_client = self._last_use = self._clock()

    def job_is_here(self) -> None:
        """Up to this moment a job was active."""
        self._last_use = self._clock()

    def nobody_comes(self) -> None:
        """Who has started this instance did not live to see it: it is idle, unless somebody else comes soon."""
        self._last_use -= max(0.0, self._idle_timeout - UNWANTED)

    @property
    def without_client(self) -> float:
        """Seconds since there was a client."""
        return self._clock() - self._last_client

    @property
    def without_use(self) -> float:
        """Seconds since there was a client or a job."""
        return self._clock() - self._last_use

    def decide(self) -> Decision:
        limits = []
        if self._idle_timeout > 0:
            reason = "no job and no client for %g s (idle time-out)" % self._idle_timeout
            limits.append((self._last_use + self._idle_timeout, reason))
        if self._orphan_timeout > 0:
            reason = "no client for %g s (orphan time-out)" % self._orphan_timeout
            limits.append((self._last_client + self._orphan_timeout, reason))
        if not limits:
            return Decision(None, None)
        moment, reason = min(limits)
        left = moment - self._clock()
        return Decision(reason, None) if left <= 0 else Decision(None, max(_RESOLUTION, left))
