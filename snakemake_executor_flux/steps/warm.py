"""The warm step: a nested Snakemake that is a fork of a server, which has imported Snakemake already.

A job's command is that of the snakemake step, with another program in the place of Python: a client of the server of
its node, which becomes the same nested Snakemake where there is no server for it. So nothing else about a job depends
on whether there is one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from snakemake_executor_flux.importing import given_by_start
from snakemake_executor_flux.places import RemotePaths
from snakemake_executor_flux.steps import nested
from snakemake_executor_flux.steps.snakemake import Program, first_on_path, nested_words, text_of
from snakemake_executor_flux.warm import client, server

#: Seconds after which a server is asked for again: one ends when it is idle, and where it runs nothing happens.
AGAIN = server.IDLE / 3
#: Servers of one run and node: each holds a Snakemake in memory. An environment differs where a workflow's code sets
#: variables while it runs.
MOST = 2

#: As `executors.Session.start_helper`.
StartHelper = Callable[[str, list[str], Mapping[str, str | None]], Future[dict[str, Any]]]


class WarmServers:
    """Of one run. Called on Snakemake's scheduler thread."""

    def __init__(self, start_helper: StartHelper, run_id: str, places: RemotePaths, *, inherits: bool) -> None:
        """``inherits``: jobs have this process's environment."""
        self._start_helper = start_helper
        self._run_id = run_id
        self._places = places
        self._inherits = inherits
        #: When each was asked for, by name, by a clock that never goes back and in seconds since the epoch.
        self._asked: dict[str, tuple[float, float]] = {}
        #: Why there are none.
        self._problem = ""
        first = given_by_start()
        if first is not None and any(Path(first).glob("snakemake_*_plugin_*")):
            # A server has looked for plugins already.
            self._problem = f"plugins of Snakemake lie in {first}"

    def against(self, secrets: Mapping[str, str]) -> str:
        """Why a job cannot take the warm step now, "" if it can. ``secrets``: what it has as secret environment."""
        if self._problem:
            return f"there is no warm server: {self._problem}"
        if len(self._asked) >= MOST and self._name(secrets) not in self._asked:
            return "the environment of jobs has changed more often than there may be warm servers"
        return ""

    def program(self, secrets: Mapping[str, str], changes: Mapping[str, str | None]) -> Program:
        """The program for a job, after its server was asked for. ``changes``: of the environment that it inherits."""
        name = self._name(secrets)
        now = time.monotonic()
        if name not in self._asked or now - self._asked[name][0] >= AGAIN:
            self._asked[name] = now, time.time()
            answer = self._start_helper(name, self._server_words(name, secrets), changes)
            answer.add_done_callback(self._answered)
        package = self._places.package
        entry = nested_words(self._places.python, package)
        own = [client.__file__] if package else ["-c", text_of(client)]
        words = [
            self._places.python,
            "-IS",
            *own,
            name,
            f"{self._asked[name][1]:.2f}",
            str(len(entry)),
            *entry,
            *first_on_path(package),
        ]
        if package:
            return Program(shlex.join(words))
        # What Snakemake does before a job (getting its sources) calls ``python -m snakemake``, too. The interpreter may
        # have that name itself, and is not to be our function.
        python = f"command {self._places.python}"
        definition = (
            f'warm() {{ command {shlex.join(words)} "$@"; }}\n'
            f'python() {{ if [ "$1 $2" = "-m snakemake" ]; then warm "$@"; else {python} "$@"; fi; }}\n'
        )
        return Program("warm", definition)

    def _answered(self, answer: Future[dict[str, Any]]) -> None:
        """On the session's reader."""
        err = answer.exception()
        if err is not None:
            self._problem = str(err)

    def _name(self, secrets: Mapping[str, str]) -> str:
        """Of the server for jobs as they are now. It tells what a server must agree in with its jobs."""
        environ = server.comparable(os.environb, secrets) if self._inherits else {}
        key = [self._run_id, self._places.python, self._places.package, sorted(map(repr, environ.items()))]
        return "fluxop-" + hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]

    def _server_words(self, name: str, secrets: Mapping[str, str]) -> list[str]:
        ignored = ",".join(sorted(secrets))
        if self._places.package:
            return [self._places.python, "-P", "-m", server.__name__, name, ignored]
        return [self._places.python, "-c", text_of(server), name, ignored, text_of(nested)]
