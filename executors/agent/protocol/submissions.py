"""Jobs that clients submit: read, told apart by their keys, handed to the engine.

Of all submissions with one key, in one request or in several at once, one job comes; all of them are answered with it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable, Dict, List, Optional, Tuple

from .. import wire
from ..engine import EngineError, SharedEnvironment, Submission
from ..environment import bad_names, merged
from .jobs import Job, JobTable

#: As `Engine.submit`.
Submit = Callable[[List[Submission]], List[Awaitable[str]]]


class Submissions:
    """``submit``: the engine's; ``environment``: what every job's environment is laid over."""

    def __init__(self, submit: Submit, table: JobTable, environment: Dict[str, str]) -> None:
        #: Requests that wait for ids of their jobs.
        self.in_progress = 0
        self._submit = submit
        self._table = table
        self._environment = environment
        #: Keys whose jobs have no id yet.
        self._pending: Dict[str, asyncio.Future[str]] = {}

    def environment(self, values: Dict[str, Optional[str]]) -> Dict[str, str]:
        """What a job has in its environment that is submitted with these variables; None removes one."""
        return merged(self._environment, values)

    async def submit(self, items: List[Dict[str, Any]], environments: List[Dict[str, Any]]) -> List[wire.SubmitAnswer]:
        """Answers to the items of one request, in order. A wrong item is refused in its answer, and spoils no other."""
        shared = [SharedEnvironment(merged(self._environment, values)) for values in environments]
        answers: List[wire.SubmitAnswer] = [{} for _ in items]
        fresh: List[Tuple[int, Submission]] = []
        promised: Dict[str, asyncio.Future[str]] = {}
        twins: List[Tuple[int, Submission, asyncio.Future[str]]] = []
        self.in_progress += 1
        try:
            for index, item in enumerate(items):
                try:
                    submission = parse_submission(item, shared)
                except EngineError as err:
                    answers[index] = {"error": str(err)}
                    continue
                key = submission.key
                known = None if key is None else self._table.by_key(key)
                if known is not None:
                    answers[index] = {"id": known.id, "known": True, "digest": known.digest}
                elif key is not None and key in self._pending:
                    twins.append((index, submission, self._pending[key]))
                else:
                    if key is not None:
                        self._pending[key] = promised[key] = asyncio.get_event_loop().create_future()
                    fresh.append((index, submission))
            ids = self._submit([submission for _, submission in fresh])
            # The fresh ones first: a key that stands twice in one request waits for one of them.
            for (index, submission), job_id in zip(fresh, ids):
                answers[index] = await self._answer(submission, job_id, promised)
            for index, submission, pending in twins:
                answers[index] = await self._answer_twin(submission, pending)
        finally:
            self.in_progress -= 1
            for key in list(promised):
                self._settle(key, promised, EngineError("the submission that this key was part of failed"))
        return answers

    async def _answer(
        self, submission: Submission, waiting: Awaitable[str], promised: Dict[str, asyncio.Future[str]]
    ) -> wire.SubmitAnswer:
        try:
            job_id = await waiting
        except EngineError as err:
            self._settle(submission.key, promised, err)
            return {"error": str(err)}
        self._table.add(Job(job_id, submission.key, submission.digest, submission.name))
        self._settle(submission.key, promised, job_id)
        return {"id": job_id, "known": False, "digest": submission.digest}

    async def _answer_twin(self, submission: Submission, pending: asyncio.Future[str]) -> wire.SubmitAnswer:
        try:
            job_id = await asyncio.shield(pending)  # others wait for it too
        except EngineError as err:
            return {"error": str(err)}
        job = self._table.jobs.get(job_id)
        return {"id": job_id, "known": True, "digest": submission.digest if job is None else job.digest}

    def _settle(self, key: Optional[str], promised: Dict[str, asyncio.Future[str]], outcome: Any) -> None:
        """Keep what a request has promised to those that wait for its key."""
        if key is None:
            return
        # Its own promise only: once a key is refused, another request may submit it again.
        future = promised.pop(key)
        if self._pending.get(key) is future:
            del self._pending[key]
        if isinstance(outcome, EngineError):
            future.set_exception(outcome)
            future.exception()  # seen: nobody may have asked for the same key
        else:
            future.set_result(outcome)


def parse_submission(item: Dict[str, Any], shared: List[SharedEnvironment]) -> Submission:
    """A Submission from its JSON form. EngineError (for this item only) says what is wrong.

    ``shared``: the request's environments, which an item names by index instead of repeating one in its jobspec.
    """
    spec: Any = item.get("jobspec")
    try:
        command = spec["tasks"][0]["command"]
        attributes = spec["attributes"]["system"]
    except (KeyError, IndexError, TypeError):
        raise EngineError("jobspec: not a jobspec V1 object") from None
    if not isinstance(command, list) or not command or not isinstance(attributes, dict):
        raise EngineError("jobspec: tasks[0].command must be a list with at least one word")
    key = item.get("key")
    urgency = item.get("urgency", 16)
    secret = item.get("secret_env")
    if key is not None and (not isinstance(key, str) or not 0 < len(key) <= 256):
        raise EngineError("key: must be a string of 1 to 256 characters")
    if not isinstance(urgency, int) or isinstance(urgency, bool) or not 0 <= urgency <= 31:
        raise EngineError("urgency: %r is not an integer from 0 to 31" % (urgency,))
    if secret is not None:
        if not isinstance(secret, dict) or not all(isinstance(v, str) and "\0" not in v for v in secret.values()):
            raise EngineError("secret_env: must map names to strings without null bytes")
        bad = bad_names(secret)
        if bad:
            raise EngineError(
                "secret_env: %s cannot be the name of an environment variable" % ", ".join(map(repr, bad))
            )
    environment = item.get("environment")
    if environment is not None and (not isinstance(environment, int) or not 0 <= environment < len(shared)):
        raise EngineError("environment: %r is not the index of one of the request's environments" % (environment,))
    if len(str(item.get("name", ""))) > wire.MAX_NAME:
        raise EngineError("name: is longer than %d characters" % wire.MAX_NAME)
    return Submission(
        spec,
        urgency,
        key,
        str(item.get("digest", "")),
        str(item.get("name", "")),
        secret,
        bool(item.get("measure")),
        None if environment is None else shared[environment],
    )
