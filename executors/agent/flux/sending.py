"""Sends jobspecs to Flux, and checks them where Flux need not.

Flux checks jobs in a program that it starts for the first one, in Python: 0.15 s of processor time in an instance whose
first job may take less. Its owner may leave that out. The same check, by Flux's own function, takes 20 us here.
"""

from __future__ import annotations

from typing import Any

import flux
import flux.job

from ..engine import EngineError


class Sender:
    """In the reactor's thread. Until `begin`, Flux checks."""

    def __init__(self) -> None:
        self._checks = False

    def begin(self, handle: flux.Flux, is_our_own: bool) -> None:
        """``is_our_own``: the instance is this run's alone. A check that its configuration names is Flux's to do."""
        ingest = handle.rpc("config.get").get().get("ingest", {}) if is_our_own else {}
        self._checks = is_our_own and "validator" not in ingest

    def send(self, handle: flux.Flux, jobspec: str, urgency: int = 16) -> Any:
        """The future of its id. Raises EngineError for what is no jobspec, where it is not Flux that says so."""
        if self._checks:
            try:
                flux.job.validate_jobspec(jobspec, 1)
            except (ValueError, TypeError, OSError) as err:
                raise EngineError(str(err)) from err
        return flux.job.submit_async(handle, jobspec, urgency=urgency, novalidate=self._checks)
