"""The process of ``flux-operator run``: leads, works while it may, and ends in good order."""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
import uuid
from pathlib import Path

from executors.controller.leading import Leadership, UpstreamWatch
from executors.controller.loop import Controller, Options
from executors.controller.metrics import Gate, MetricsServer, metric_lines, prometheus_text
from executors.controller.serving import HealthServer
from executors.interrupts import none_missed
from executors.kube import Api
from executors.provision.kubernetes.version import check_version

log = logging.getLogger(__name__)


class Process:
    """``health_port`` 0: nobody asks. ``metrics``: a port, and the directory of its certificate and key.

    Raises ConfigError for a certificate that cannot be used.
    """

    def __init__(self, api: Api, options: Options, health_port: int, metrics: tuple[int, Path] | None = None) -> None:
        self._api = api
        self._options = options
        self._closing = threading.Event()
        self._woken = threading.Event()
        self._controller: Controller | None = None
        self._lease_namespace = options.namespace or api.namespace
        checks = {"/healthz": self._is_alive, "/readyz": self._is_ready}
        self._metrics = None
        if metrics is not None:
            port, directory = metrics
            self._metrics = MetricsServer(
                port, directory, Gate(api), lambda: prometheus_text(metric_lines(self._controller))
            )
        self._health = HealthServer(health_port, checks) if health_port else None

    def run(self) -> int:
        """Returns the exit code; TERM and INT end it. Raises ProvisionError for a Kubernetes that is too old."""
        check_version(self._api, "this operator, which needs Jobs with", "use upstream's operator")
        # A worker that waited would keep all other MiniClusters waiting; each has its own turn again.
        self._api.patient = False
        told: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._end_when, args=(told,), name="ending", daemon=True).start()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: told.put(number))
        with none_missed():
            return self._run()

    def _run(self) -> int:
        identity = f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:8]}"
        leadership = Leadership(self._api, self._lease_namespace, identity, self._woken.set)
        upstream = UpstreamWatch(self._api, self._lease_namespace, self._woken.set)
        code = 0
        try:
            if leadership.acquire(self._closing):
                code = self._lead(leadership, upstream)
        finally:
            leadership.release()
            upstream.stop()
            for server in (self._health, self._metrics):
                if server is not None:
                    server.close()
        log.info("ended")
        return code

    def _lead(self, leadership: Leadership, upstream: UpstreamWatch) -> int:
        while not self._closing.is_set() and not leadership.lost.is_set():
            if upstream.until() > time.monotonic():
                log.warning("standing by, because upstream's Flux Operator runs (see its Lease); remove one of the two")
                while not (self._closing.is_set() or leadership.lost.is_set()):
                    left = upstream.until() - time.monotonic()
                    if left <= 0:
                        break
                    self._sleep(left)
                continue
            controller = self._controller = Controller(self._api, self._options)
            starting = threading.Thread(target=controller.start, name="start", daemon=True)
            starting.start()
            while not (self._closing.is_set() or leadership.lost.is_set() or upstream.until() > time.monotonic()):
                self._sleep(3600.0)
            self._controller = None
            controller.stop()
        if leadership.lost.is_set():
            log.error("the Lease is lost; exiting, to be started again")
            return 1
        return 0

    def _sleep(self, seconds: float) -> None:
        """Until something may have changed."""
        if self._woken.wait(seconds):
            self._woken.clear()

    def _is_alive(self) -> bool:
        controller = self._controller
        return controller is None or controller.is_alive()

    def _is_ready(self) -> bool:
        """A replica that stands by is ready to."""
        controller = self._controller
        return controller is None or controller.synced

    def _end_when(self, told: queue.SimpleQueue[int]) -> None:
        """A thread does it: a signal's handler may have interrupted the main thread as it holds these events' locks."""
        told.get()
        self._closing.set()
        self._woken.set()
