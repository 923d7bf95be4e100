"""Handles and their futures, on a session's jobs with an agent in memory."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import time
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from executors import JobFailedError, JobHandle, JobResult, Outcome, Reason, as_completed
from executors.client import Client
from executors.job import Environment
from executors.session.control import JobControl
from executors.session.job import Job
from executors.session.preparation import Prepared
from tests.support.agents import FakeAgent

LIMIT = 30.0
READY = Prepared(urgency=16, digest="d", line=b'{"digest":"d"}', environment=Environment({}))


class Jobs:
    """Jobs that end when the test says so."""

    def __init__(self) -> None:
        self._ids = map("f{}".format, itertools.count(1))
        self._sequence = itertools.count(1)
        self.agent = FakeAgent(self._answer)
        self.lost: list[float] = []
        self.control = JobControl(self._connect, 1000, True, self._note_loss)
        self.control.start()

    def _note_loss(self) -> None:
        time.sleep(0.05)  # time in which somebody who waits could see the result too early
        self.lost.append(time.monotonic())

    def _connect(self, handler: Any) -> Client:
        client = Client(self.agent.endpoint, handler, opener=self.agent.open)
        client.connect()
        return client

    def _answer(self, request: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if request["op"] == "submit":
            items = [{"id": next(self._ids), "known": False, "digest": "d"} for _ in request["items"]]
            yield {"re": request["id"], "ok": {"items": items}}
        else:
            yield {"re": request["id"], "ok": {"errors": {}}}

    def submit(self, count: int) -> list[JobHandle]:
        jobs = [Job(f"key-{index}", "") for index in range(count)]
        self.control.submit([(job, READY) for job in jobs], [])
        handles = [JobHandle(self.control, job) for job in jobs]
        for handle in handles:
            handle.wait_submitted(LIMIT)
        return handles

    def end(self, handle: JobHandle, returncode: int = 0, outcome: str | None = None) -> None:
        result = {"outcome": outcome or ("FAILED" if returncode else "COMPLETED"), "returncode": returncode}
        self.agent.say({"ev": [[next(self._sequence), handle.id, "clean", 0.0, {"result": result}]]})

    def close(self) -> None:
        self.control.set_closed()
        self.control.send_the_rest()
        self.control.client.close()
        self.control.stop()
        self.control.join()


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.close()


def test_a_handles_future_is_one_of_concurrent_futures(jobs: Jobs) -> None:
    first, second = jobs.submit(2)
    futures = [first.future, second.future]
    jobs.end(second, 3)
    [ended] = concurrent.futures.wait(futures, LIMIT, concurrent.futures.FIRST_COMPLETED).done
    assert ended is futures[1] and ended.result().returncode == 3 and ended.exception() is None
    jobs.end(first)
    assert set(concurrent.futures.as_completed(futures, LIMIT)) == set(futures)
    assert first.future is futures[0], "made once"


def test_a_job_can_be_awaited(jobs: Jobs) -> None:
    [handle] = jobs.submit(1)

    async def wait() -> JobResult:
        future = asyncio.wrap_future(handle.future)
        await asyncio.sleep(0)
        jobs.end(handle)
        return await asyncio.wait_for(future, LIMIT)

    assert asyncio.run(wait()).ok


def test_cancelling_a_future_asks_for_the_jobs_cancellation(jobs: Jobs) -> None:
    [handle] = jobs.submit(1)
    assert handle.future.cancel() is False and not handle.future.done()
    assert [request["ids"] for request in jobs.agent.asked("cancel")] == [[handle.id]]
    jobs.end(handle, 143)
    assert handle.future.result(LIMIT).returncode == 143


def test_a_future_that_was_asked_for_after_the_end_has_it(jobs: Jobs) -> None:
    [handle] = jobs.submit(1)
    jobs.end(handle, 4)
    handle.result(LIMIT)
    assert handle.future.result(LIMIT).returncode == 4


def test_jobs_come_in_the_order_in_which_they_end(jobs: Jobs) -> None:
    handles = jobs.submit(4)
    jobs.end(handles[2])
    handles[2].result(LIMIT)
    order = []
    for handle in as_completed([*handles, handles[0]], LIMIT):
        order.append(handles.index(handle))
        if len(order) < 4:
            jobs.end(handles[(3, 0, 1)[len(order) - 1]])
    assert order == [2, 3, 0, 1], "each once"


def test_jobs_that_do_not_end_in_time_are_counted(jobs: Jobs) -> None:
    handles = jobs.submit(3)
    jobs.end(handles[0])
    ended = as_completed(handles, 0.2)
    assert next(ended) is handles[0]
    with pytest.raises(TimeoutError, match=r"2 of 3 jobs have not ended within 0\.2 s"):
        next(ended)


def test_waiting_in_a_callback_is_refused_whatever_the_way(jobs: Jobs) -> None:
    first, second = jobs.submit(2)
    future = second.future
    refused: list[str] = []

    def callback(_handle: JobHandle) -> None:
        for wait in (second.result, future.result, future.exception, lambda: next(as_completed([second]))):
            try:
                wait()
            except RuntimeError as err:
                refused.append(str(err))

    first.add_done_callback(callback)
    jobs.end(first)
    first.result(LIMIT)
    jobs.end(second)
    second.result(LIMIT)
    assert len(refused) == 4 and all("inside a callback" in text for text in refused)


def test_only_what_was_dealt_with_is_acknowledged(jobs: Jobs) -> None:
    first, second = jobs.submit(2)
    futures = [first.future, second.future]
    jobs.end(first)
    jobs.end(second)
    concurrent.futures.wait(futures, LIMIT)
    assert list(as_completed([first, second], LIMIT)) == [first, second]
    jobs.control.client.request("info")
    assert not jobs.agent.asked("ack")
    futures[1].result(LIMIT)
    jobs.close()
    assert [request["ids"] for request in jobs.agent.asked("ack")] == [[second.id]]


def test_why_a_job_was_lost_is_asked_before_its_result_is_seen(jobs: Jobs) -> None:
    """Its user may close the session at once, which waits for the reason only if that is being looked for."""
    [handle] = jobs.submit(1)
    jobs.end(handle, outcome="LOST")
    assert handle.result(LIMIT).outcome is Outcome.LOST
    seen = time.monotonic()
    assert len(jobs.lost) == 1 and jobs.lost[0] <= seen


def test_check_raises_for_all_but_success() -> None:
    good = JobResult(Outcome.COMPLETED, 0)
    assert good.check() is good
    bad = JobResult(Outcome.FAILED, 3, node="node1")
    with pytest.raises(JobFailedError, match="the job failed on node1 with exit code 3") as caught:
        bad.check()
    assert caught.value.result is bad
    never = JobResult.without_run(Outcome.CANCELLED, Reason.NEVER_SUBMITTED, "never submitted: closed")
    assert never.reason is Reason.NEVER_SUBMITTED and JobResult(Outcome.LOST).reason is None


def test_a_handle_is_small(jobs: Jobs) -> None:
    count = 5000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        handles = [JobHandle(jobs.control, Job(f"{index:032}", "")) for index in range(count)]
        size = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert len(handles) == count and size <= 450, f"{size:.0f} bytes"
