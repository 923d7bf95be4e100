"""Requests made ready to be sent, and what jobs inherit from this process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from executors.agent.wire import MAX_LINE, is_text
from executors.config import RunConfig
from executors.errors import ProvisionError, RequestError
from executors.job import Defaults, Environment, Environments, JobRequest, Submission, prepare_submission


@dataclass(frozen=True)
class Prepared:
    """A request that can be sent."""

    urgency: int
    digest: str
    #: A JSON object, without the environment, which a message holds once.
    line: bytes
    environment: Environment


class Preparation:
    """Makes requests ready, by the run's defaults. Thread-safe."""

    def __init__(self, config: RunConfig, inherited: Mapping[str, str] | None, base_cwd: str) -> None:
        """``inherited``: what jobs inherit from this process; None: they run elsewhere, and inherit nothing."""
        # Brokers in several pods on one node would each bind their tasks to the node's first cores.
        shell_options = {} if inherited is not None else {"cpu-affinity": "off"}
        self._defaults = _defaults(config, shell_options)
        self._environments = Environments(inherited)
        self._base_cwd = base_cwd
        self._lock = threading.Lock()

    def prepare(self, request: JobRequest, key: str) -> Prepared:
        """Raises RequestError with everything that is wrong; a request with values of wrong types may raise
        TypeError, ValueError, AttributeError, OverflowError or RecursionError.
        """
        with self._lock:
            submission = prepare_submission(request, self._defaults, self._environments, self._base_cwd)
        return Prepared(submission.urgency, submission.digest, _encode(submission, key), submission.environment)

    def environment(self, env: Mapping[str, str | None]) -> dict[str, str | None]:
        """What a job with this environment is sent with."""
        with self._lock:
            request = JobRequest(argv=["true"], env=env)
            return self._environments.for_request(request, self._defaults.env).values


def working_directory(needed: bool) -> str:
    """This process's own. Raises ProvisionError where it is gone and ``needed``; else jobs have to name theirs."""
    try:
        return os.getcwd()
    except OSError as err:
        if not needed:
            return ""
        raise ProvisionError(
            f"the working directory of this process cannot be found ({err.strerror}); was it removed? Jobs start "
            "there by default, so change to a directory that exists"
        ) from err


def passable(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a process can have: names and values that were bytes, or can be."""
    kept = {}
    for name, value in environ.items():
        with contextlib.suppress(UnicodeEncodeError):
            os.fsencode(name + value)
            kept[name] = value
    return kept


def not_for_flux(environ: Mapping[str, str]) -> list[str]:
    """Variables that jobs under Flux cannot have: not UTF-8, so not in a jobspec, and no shell can set them."""
    return [
        name
        for name, value in environ.items()
        if not is_text(name + value) and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    ]


def _defaults(config: RunConfig, shell_options: Mapping[str, str]) -> Defaults:
    jobs = config.job_defaults
    return Defaults(
        queue=jobs.queue,
        bank=jobs.bank,
        cores_per_task=jobs.cores_per_task,
        gpus_per_task=jobs.gpus_per_task,
        duration=jobs.duration,
        urgency=jobs.urgency,
        env=jobs.env,
        shell_options=shell_options,
    )


def _encode(submission: Submission, key: str) -> bytes:
    line = json.dumps({**submission.to_wire(), "key": key}, separators=(",", ":")).encode("ascii")
    size = len(line) + len(submission.environment.encoded)
    if size > MAX_LINE - 1024:
        problem = f"the whole job has {size} bytes, but one message holds at most {MAX_LINE}"
        raise RequestError([problem], submission.name)
    return line
