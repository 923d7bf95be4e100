"""Has Flux hold cores for pilots: submits holders, and cancels those that wait."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any, Callable, Dict, List

import flux
import flux.job

from ..flux.reactor import Reactor, then
from ..flux.sending import Sender
from .instance import TAG
from .shape import Shape


class HolderJobs:
    """``suffix`` names this run's pilots; ``in_pod``: holders are not bound to their cores there."""

    def __init__(self, reactor: Reactor, sender: Sender, suffix: str, in_pod: bool) -> None:
        self._reactor = reactor
        self._sender = sender
        self._suffix = suffix
        self._in_pod = in_pod

    def ask(self, shape: Shape, count: int, failed: Callable[[str], None]) -> None:
        """Submit holders. ``failed`` is called on the loop for each that is refused, with the reason."""
        holder = [sys.executable, "-IS", os.path.abspath(sys.argv[0]), "hold"]
        command = [*holder, self._suffix, *map(str, shape)]
        text = json.dumps(_jobspec(self._suffix, shape, command, is_bound=not self._in_pod))

        def done(future: Any) -> None:
            try:
                future.get_id()
            except OSError as err:
                reason = future.error_string() or os.strerror(err.errno or errno.EIO)
                self._reactor.to_loop(lambda: failed(reason))

        def call(handle: flux.Flux) -> None:
            for _ in range(count):
                then(self._sender.send(handle, text), done)

        self._reactor.call(call)

    def withdraw(self, jobs: List[int]) -> None:
        """Cancel holders that wait."""

        def call(handle: flux.Flux) -> None:
            for job in jobs:
                then(flux.job.cancel_async(handle, job, "not needed"), _ignore_end)

        self._reactor.call(call)


def _jobspec(suffix: str, shape: Shape, command: List[str], is_bound: bool) -> Dict[str, Any]:
    """The jobspec of a holder. ``is_bound``: to its cores."""
    system: Dict[str, Any] = {"duration": 0, "cwd": "/", "environment": {}, "job": {"name": "pilot-holder"}}
    system["shell"] = {"options": {"pmi": "off", **({} if is_bound else {"cpu-affinity": "off"})}}
    inside = [{"type": "core", "count": shape.cores}]
    if shape.gpus:
        inside.append({"type": "gpu", "count": shape.gpus})
    return {
        "version": 1,
        "resources": [{"type": "slot", "count": 1, "label": "task", "with": inside}],
        "tasks": [{"command": command, "slot": "task", "count": {"per_slot": 1}}],
        "attributes": {"system": system, "user": {TAG: {"suffix": suffix, "shape": shape}}},
    }


def _ignore_end(future: Any) -> None:
    try:
        future.get()
    except OSError:
        pass  # it has ended meanwhile, or has got its core: then the pilot lets it go
