"""How the agent starts pilots and speaks with them, through the reactor's thread. What is said: `messages`."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import sys
from typing import Any, Callable, Dict, List, Optional

import flux
import flux.constants
import flux.job

from ..engine import OutputPosition
from ..flux.reactor import Reactor, then, then_each
from .messages import Answer, Told, topic

log = logging.getLogger("agent")

#: Seconds between two tries to reach a pilot that is starting, and tries.
_AGAIN = 0.03
_TRIES = 1000

#: Called on the loop with the reason.
Lost = Callable[[str], None]


class Contact:
    """``suffix`` names this run's pilots; ``epoch`` is this agent's; ``spool``: as for `node.main`."""

    def __init__(self, reactor: Reactor, suffix: str, spool: str) -> None:
        self._reactor = reactor
        self._suffix = suffix
        self._spool = spool
        self.epoch = 0
        self._timers: Dict[int, Any] = {}

    def start(self, rank: int, failed: Callable[[str], None]) -> None:
        """Start a pilot beside a broker, as `flux exec --bg` would: it holds no cores."""
        command = ["flux", "python", os.path.abspath(sys.argv[0]), "pilot", "--suffix", self._suffix]
        if self._spool:
            command += ["--spool", self._spool]
        # An empty environment stands for the broker's own.
        cmd = {"cwd": "/", "cmdline": command, "env": {}, "opts": {}, "channels": []}

        def done(future: Any) -> None:
            try:
                future.get()
            except OSError as err:
                reason = future.error_string() or os.strerror(err.errno or errno.EIO)
                self._reactor.to_loop(lambda: failed(reason))

        self._reactor.call(lambda handle: then(handle.rpc("rexec.exec", {"cmd": cmd, "flags": 0}, nodeid=rank), done))

    def attach(self, rank: int, is_starting: bool, told: Callable[[Told], None], lost: Lost) -> None:
        """Take over the pilot of a node; one that is starting is waited for."""
        tries = _TRIES if is_starting else 1
        self._reactor.call(lambda handle: self._attach(handle, rank, tries, told, lost))

    def _attach(self, handle: flux.Flux, rank: int, tries: int, told: Callable[[Told], None], lost: Lost) -> None:
        def answered(future: Any) -> bool:
            try:
                message = future.get()
            except OSError as err:
                if err.errno == errno.ENOSYS and tries > 1:
                    again = self._timers[rank] = handle.timer_watcher_create(
                        _AGAIN, lambda *_: self._attach(handle, rank, tries - 1, told, lost)
                    )
                    again.start()
                    return False
                reason = os.strerror(err.errno or errno.EIO)
                self._reactor.to_loop(lambda: lost(reason))
                return False
            self._reactor.to_loop(lambda: told(message))
            return "error" not in message and "ended" not in message

        flags = flux.constants.FLUX_RPC_STREAMING
        then_each(handle.rpc(topic(self._suffix, "attach"), {"epoch": self.epoch}, rank, flags), answered)

    def call(self, rank: int, operations: List[Any], answered: Callable[[Answer], None], lost: Lost) -> None:
        """Have a pilot do a list of operations (see `messages`)."""
        text = json.dumps({"epoch": self.epoch, "do": operations}, separators=(",", ":"))
        self._ask(rank, "call", text, answered, lost)

    def read(self, rank: int, position: OutputPosition, answered: Callable[[Answer], None], lost: Lost) -> None:
        """Ask for the next piece of a task's output."""
        payload = {
            "epoch": self.epoch, "task": position.job_id, "stream": position.stream, "offset": position.offset,
        }  # fmt: skip
        self._ask(rank, "read", payload, answered, lost)

    def _ask(self, rank: int, request: str, payload: Any, answered: Callable[[Answer], None], lost: Lost) -> None:
        """One request to a pilot, with one answer. ``payload``: an object, or its JSON text."""

        def done(future: Any) -> None:
            try:
                answer = future.get()
            except OSError as err:
                reason = os.strerror(err.errno or errno.EIO)
                self._reactor.to_loop(lambda: lost(reason))
            else:
                self._reactor.to_loop(lambda: answered(answer))

        name = topic(self._suffix, request)
        self._reactor.call(lambda handle: then(handle.rpc(name, payload, rank), done))

    def end_by_force(self, rank: int, pid: int) -> None:
        """Kill the process of a pilot; that it is gone is told to who has attached."""

        def done(future: Any) -> None:
            try:
                future.get()
            except OSError as err:
                log.warning("the pilot on rank %d cannot be killed: %s", rank, future.error_string() or err.strerror)

        payload = {"pid": pid, "signum": int(signal.SIGKILL)}
        self._reactor.call(lambda handle: then(handle.rpc("rexec.kill", payload, nodeid=rank), done))

    @staticmethod
    def number_of(job_id: str) -> Optional[int]:
        """The number of a job id of Flux in any of its forms; None where it is none."""
        try:
            return int(flux.job.JobID(job_id))
        except ValueError:
            return None
