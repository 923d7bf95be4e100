"""Submits jobs to Flux, in the reactor's thread, and brings their ids to the loop in batches."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any, Awaitable, Callable, List, Tuple, Union

import flux
import flux.job

from ..engine import EngineError, Submission
from .batches import Batches
from .reactor import Reactor, reject, resolve, then
from .sending import Sender

#: Submissions of one job, should Flux refuse it with EEXIST.
_TRIES = 3


class _Attempt:
    """One job on its way: the caller that waits for its id, and the files that were made for it."""

    __slots__ = ("files", "result", "text", "tries", "urgency")

    def __init__(self, result: asyncio.Future[str], urgency: int) -> None:
        self.result = result
        self.urgency = urgency
        self.text = ""
        self.files: List[str] = []
        self.tries = 0


class Submitter:
    """``write`` makes the text of a job, and adds the files that it makes for it to a list."""

    def __init__(self, reactor: Reactor, write: Callable[[Submission, List[str]], str], sender: Sender) -> None:
        self._reactor = reactor
        self._write = write
        self._sender = sender
        self._answers: Batches[Tuple[asyncio.Future[str], Union[str, EngineError]]] = Batches(reactor.to_loop, _settle)
        #: Jobs that were asked for (counted on the loop).
        self._asked = 0
        #: Those that were refused, and those that got their id (counted in the reactor's thread).
        self._refused = 0
        self.accepted = 0

    @property
    def expected(self) -> int:
        """Jobs that Flux has, or will have."""
        return self._asked - self._refused

    def submit(self, submissions: List[Submission]) -> List[Awaitable[str]]:
        """See `Engine.submit`."""
        attempts = [_Attempt(asyncio.get_event_loop().create_future(), job.urgency) for job in submissions]
        self._asked += len(submissions)

        def call(handle: flux.Flux) -> None:
            for submission, attempt in zip(submissions, attempts):
                try:
                    attempt.text = self._write(submission, attempt.files)
                    self._send(handle, attempt)
                except EngineError as err:
                    self._refuse(attempt, str(err))
                except Exception as err:  # this thread serves all clients: nothing in one item may end it
                    self._refuse(attempt, "the jobspec cannot be submitted: %s" % err)

        self._reactor.call(call)
        return [attempt.result for attempt in attempts]

    def _send(self, handle: flux.Flux, attempt: _Attempt) -> None:
        attempt.tries += 1
        future = self._sender.send(handle, attempt.text, attempt.urgency)
        then(future, self._answered, handle, attempt)

    def _answered(self, future: Any, handle: flux.Flux, attempt: _Attempt) -> None:
        try:
            number = int(future.get_id())
        except OSError as err:
            if err.errno == errno.EEXIST and attempt.tries < _TRIES:
                # Nothing of the job was stored; seen once in 100,000 submissions.
                self._send(handle, attempt)
            else:
                self._refuse(attempt, future.error_string() or os.strerror(err.errno or errno.EIO))
            return
        self.accepted += 1
        self._answers.put((attempt.result, plain_id(number)))

    def _refuse(self, attempt: _Attempt, reason: str) -> None:
        self._refused += 1
        for path in attempt.files:
            remove(path)
        self._answers.put((attempt.result, EngineError(reason)))


def _settle(answers: List[Tuple[asyncio.Future[str], Union[str, EngineError]]]) -> None:
    for result, answer in answers:
        if isinstance(answer, EngineError):
            reject(result, answer)
        else:
            resolve(result, answer)


def plain_id(number: int) -> str:
    """The id of a job in its plain form (RFC 19, F58 with an ASCII prefix)."""
    return str(flux.job.JobID(number).f58plain)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # the job has removed it itself, as it should
