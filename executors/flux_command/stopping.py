"""How tasks are ended before their time: cancelled, over their limit, or left by their Nextflow."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future

from executors import ExecutorsError, Session
from executors.flux_command import ending, settling
from executors.flux_command.task import Task

log = logging.getLogger(__name__)


class Stopper:
    """All methods are called on the loop, and none of them waits. ``note`` takes a line for the run's log."""

    def __init__(self, session: Session, pool: Executor, note: Callable[[str], None]) -> None:
        self._session = session
        self._pool = pool
        self._note = note
        self._loop = asyncio.get_running_loop()

    def limit(self, task: Task) -> None:
        """A task has started: its time runs. Its ``timer`` is to be cancelled at its end."""
        if task.asked.limit is not None and task.timer is None:
            task.timer = self._loop.call_later(task.asked.limit, self._over, task)

    def cancel(self, tasks: list[Task], why: str) -> None:
        """Ask Flux to end them; ``why`` is the note of the cancellation."""
        for task in tasks:
            task.why = task.why or ending.CANCELLED
        self._tell_cancel(tasks, why)

    def end(self, tasks: list[Task]) -> None:
        """Sooner than Flux does, which waits for 5 s after TERM: who would have used the results is gone."""
        for task in tasks:
            task.abandoned = True
        if tasks:
            self.cancel(tasks, "Nextflow has ended")
            self._loop.call_later(settling.GRACE, self._kill, tasks)

    def _over(self, task: Task) -> None:
        if task.why is not None:
            return
        task.why = ending.LIMIT
        reason = f"time limit of {task.asked.limit:g} s reached"

        def said(_: Future[None]) -> None:
            try:
                self._loop.call_soon_threadsafe(self._tell_cancel, [task], reason)
            except RuntimeError:
                pass  # the loop has been closed: the process ends

        # Before the wrapper has written its result, at which Nextflow reads this.
        self._pool.submit(settling.say, task.directory, f"job {task.id} ended: {reason}").add_done_callback(said)

    def _kill(self, tasks: list[Task]) -> None:
        ids = [task.handle.id for task in tasks if task.handle is not None and task.handle.id is not None]
        if ids and self._session.lost is None:
            self._pool.submit(_kill_jobs, self._session, ids)

    def _tell_cancel(self, tasks: list[Task], note: str) -> None:
        handles = [task.handle for task in tasks if task.handle is not None]
        if handles:
            try:
                self._session.cancel(handles, note)
            except ExecutorsError as err:  # the instance is gone, and the jobs with it
                self._note(f"cancelling: {err}")


def _kill_jobs(session: Session, ids: list[str]) -> None:
    try:
        session.kill_ids(ids, signal.SIGKILL)
    except ExecutorsError as err:  # Flux does it a little later
        log.warning("jobs cannot be killed: %s", err)
