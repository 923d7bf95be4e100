"""One run's instance in use: submit jobs, hold their handles, hear of their ends.

What decides is pure, is called under the session's lock, and does no I/O: `job` (one job), `registry` (all jobs, by
what the agent says), `outbox` (what waits for its turn), `history` (events). `control` has the lock, the threads and
the stream; `session` is the public face of it, `handle` that of a job. Nothing here knows how an instance is made
(`executors.lifecycle`) or what a workflow engine is.
"""

from executors.session.completed import as_completed
from executors.session.handle import JobHandle
from executors.session.opening import end_run, join_session, open_session
from executors.session.session import Session

__all__ = ["JobHandle", "Session", "as_completed", "end_run", "join_session", "open_session"]
