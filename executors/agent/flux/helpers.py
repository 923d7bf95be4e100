"""Programs that a client has run beside its jobs, outside of any of them: one of each name on every node.

Flux's brokers start them (RFC 42), as for ``flux exec``, which takes no cores from jobs. The request of each stays open
until its program ends, so that Flux kills the programs when this agent goes away, however it does.
"""

from __future__ import annotations

import errno
import logging
from typing import Any, Dict, List, Set, Tuple

import flux
import flux.constants
import flux.idset

from .reactor import then_each

log = logging.getLogger("agent")

_STREAMING = flux.constants.FLUX_RPC_STREAMING
#: Of a request: send what it writes to stderr.
_SEND_STDERR = 2
#: All that it writes is for the agent's log.
_QUIET = ["/bin/sh", "-c", 'exec "$@" </dev/null >&2', "sh"]


class Helpers:
    """Called in the reactor's thread."""

    def __init__(self) -> None:
        self._wanted: Dict[str, Dict[str, Any]] = {}
        self._running: Set[Tuple[str, int]] = set()
        self._online: Set[int] = set()
        #: The request that tells which brokers are there.
        self._watch: Any = None

    def start(self, handle: flux.Flux, name: str, command: List[str], env: Dict[str, str]) -> None:
        """Run it on every node where it does not run, and on those that join."""
        self._wanted[name] = {"cmdline": [*_QUIET, *command], "cwd": "/", "env": env, "opts": {}, "channels": []}
        if self._watch is None:
            self._watch = handle.rpc("groups.get", {"name": "broker.online"}, 0, _STREAMING)
            then_each(self._watch, self._brokers_changed, handle)
        for rank in self._online:
            self._start(handle, name, rank)

    def _brokers_changed(self, future: Any, handle: flux.Flux) -> bool:
        try:
            online = set(flux.idset.decode(future.get()["members"]))
        except OSError as err:  # at the instance's end
            log.info("helpers: nothing tells which brokers are there: %s", err)
            self._watch = None
            return False
        for rank in online - self._online:
            for name in self._wanted:
                self._start(handle, name, rank)
        self._online = online
        return True

    def _start(self, handle: flux.Flux, name: str, rank: int) -> None:
        if (name, rank) in self._running:
            return
        self._running.add((name, rank))
        request = handle.rpc("rexec.exec", {"cmd": self._wanted[name], "flags": _SEND_STDERR}, rank, _STREAMING)
        then_each(request, self._heard, name, rank)

    def _heard(self, future: Any, name: str, rank: int) -> bool:
        try:
            said = future.get()
        except OSError as err:  # its end, too: the stream of answers is over
            self._running.discard((name, rank))
            if err.errno != errno.ENODATA:
                log.info("helpers: %s on rank %d: %s", name, rank, future.error_string() or err)
            return False
        if said.get("type") == "output":
            for line in str(said["io"].get("data", "")).splitlines():
                log.info("helpers: %s on rank %d: %s", name, rank, line)
        return True
