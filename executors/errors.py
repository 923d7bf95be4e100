"""Every error the core raises, in one hierarchy.

    ExecutorsError
    |-- ConfigError              a config file, an environment variable or an option is wrong (all problems at once)
    |   `-- SpecError            a MiniCluster spec is wrong, or asks for what direct mode cannot do (all problems)
    |-- RequestError             a JobRequest is wrong (all problems at once)
    |-- RunNameError             a run id from which no legal name can be made
    |-- ProvisionError           an instance could not be created, found or reached
    |   |-- GuestError           attached to an instance whose job journal belongs to somebody else
    |   `-- ApiError             what the Kubernetes API server answers (`executors.kube.errors`)
    |       |-- UnreachableError    nothing: it is away, or the connection was cut
    |       |-- ForbiddenError      not allowed, a quota is exceeded, or an admission plugin said no
    |       |-- NotFoundError       no such object, or no such kind
    |       |-- ConflictError       it exists already, or is not the object that was meant
    |       |-- BusyError           another client wrote at the same moment
    |       |-- ExpiredError        a watch has to begin again
    |       `-- InvalidError        the object is wrong
    |-- TransportError           the stream to the agent could not be opened, or was cut and did not come back
    |   |-- AgentSilentError     reached the place, and no agent answers there
    |   |   `-- AgentStartingError   nor has one been there yet
    |   |-- EndingError          the agent is about to end; the same run has to begin again
    |   `-- ProtocolError        the other side does not speak this protocol, or not this version of it
    |-- AgentError               the agent answered a request with an error; ``code`` tells which
    |-- SessionClosedError       the session was closed or its agent is gone
    |   `-- ForkedError          a forked child uses a session that belongs to its parent
    `-- JobFailedError           `JobResult.check` of a job that has not completed (`executors.results`)
A job that fails is not an error of this kind: it is a `JobResult` whose outcome says so.
"""

from __future__ import annotations

from collections.abc import Sequence


class ExecutorsError(Exception):
    """Base of everything that the core raises on purpose."""

    #: Whether the same may go well a moment later.
    transient = False


class _Problems(ExecutorsError):
    """An error that carries every problem that was found, not the first one only."""

    what = "invalid"

    def __init__(self, problems: Sequence[str], subject: str = "") -> None:
        self.problems = tuple(problems)
        head = f"{subject}: " if subject else ""
        if len(self.problems) == 1:
            text = f"{head}{self.problems[0]}"
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{head}{len(self.problems)} problems{lines}"
        super().__init__(text)


class ConfigError(_Problems):
    """A config is wrong. ``problems`` has one text per problem: field, value, cure."""


class SpecError(ConfigError):
    """A MiniCluster spec is wrong. ``problems`` has one text per problem: field path, value, what is allowed."""


class RequestError(_Problems):
    """A JobRequest cannot be turned into a jobspec. ``problems`` has one text per problem."""


class RunNameError(ExecutorsError):
    """No legal object name can be made from a run id."""


class ProvisionError(ExecutorsError):
    """A Flux instance could not be created, found or reached."""


class GuestError(ProvisionError):
    """The instance belongs to another user, so its job journal cannot be read (flux-core: owner only)."""


class TransportError(ExecutorsError):
    """The stream to the agent could not be opened, or was lost for good."""

    transient = True


class ProtocolError(TransportError):
    """The peer does not speak this protocol, or no version of it that this side knows."""

    transient = False


class AgentSilentError(TransportError):
    """There is a way to where the agent should be, and it does not answer there."""


class AgentStartingError(AgentSilentError):
    """No agent has been there yet: what comes before it (hooks, the brokers' start) goes on."""


class EndingError(TransportError):
    """The agent is about to end and accepts no clients any more; the same run has to begin again."""


class AgentError(ExecutorsError):
    """The agent refused a request. ``code`` is one of `executors.agent.wire.ERROR_CODES`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class SessionClosedError(ExecutorsError):
    """A session was used after it was closed, or after its agent was lost."""


class ForkedError(SessionClosedError):
    """A session belongs to the process that has opened it; a forked child has to open or join one of its own."""
