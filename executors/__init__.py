"""Run the tasks of a workflow engine as Flux jobs, in one Flux instance per run.

    from executors import JobRequest, RunId, load_config, open_session

    with open_session(RunId("python", "example"), load_config()) as session:
        job = session.submit_one(JobRequest(argv=["hostname"]))
        print(job.result().outcome)

Only the names below are public. (PyPI has an unrelated package with the same import name, ``executors``; the two
cannot be installed side by side.)
"""

from executors.agent.wire import Cursor, JobEvent
from executors.config import RunConfig, load_config
from executors.errors import (
    AgentError,
    ConfigError,
    ExecutorsError,
    GuestError,
    ProtocolError,
    ProvisionError,
    RequestError,
    RunNameError,
    SessionClosedError,
    TransportError,
)
from executors.job import JobRequest
from executors.names import RunId, run_name
from executors.results import (
    JobException,
    JobFailedError,
    JobInfo,
    JobResult,
    NodeInfo,
    Outcome,
    Reason,
    Times,
    Usage,
)
from executors.session import JobHandle, Session, as_completed, end_run, join_session, open_session

__all__ = [
    "AgentError",
    "ConfigError",
    "Cursor",
    "ExecutorsError",
    "GuestError",
    "JobEvent",
    "JobException",
    "JobFailedError",
    "JobHandle",
    "JobInfo",
    "JobRequest",
    "JobResult",
    "NodeInfo",
    "Outcome",
    "ProtocolError",
    "ProvisionError",
    "Reason",
    "RequestError",
    "RunConfig",
    "RunId",
    "RunNameError",
    "Session",
    "SessionClosedError",
    "Times",
    "TransportError",
    "Usage",
    "as_completed",
    "end_run",
    "join_session",
    "load_config",
    "open_session",
    "run_name",
]
