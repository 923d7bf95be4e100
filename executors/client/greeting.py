"""The first words on a stream, spoken synchronously, and what it means when there is no answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from executors.agent import wire
from executors.agent.wire import JobSummary
from executors.client.clock import MONOTONIC, Clock
from executors.client.conversation import Bye, Conversation, Greeted, Hello, Watching
from executors.errors import AgentSilentError, AgentStartingError, EndingError, TransportError
from executors.transport import ProgramEnded, Stream

_Awaited = TypeVar("_Awaited", Greeted, Watching)


@dataclass(frozen=True)
class Greeting:
    """What an agent has answered. ``snapshot``: see `Watching`."""

    hello: Hello
    snapshot: list[JobSummary] | None


class ReplacedError(ConnectionError):
    """Another instance answers where the client's was."""


def greet(
    stream: Stream,
    conversation: Conversation,
    *,
    limit: float,
    instance: str | None,
    clock: Clock = MONOTONIC,
) -> Greeting:
    """Say hello and follow events. ``limit``: seconds for each answer; ``instance``: the one that must answer.

    Raises OSError, and what `Conversation.take` does.
    """
    stream.send(conversation.hello_request())
    hello = _await(Greeted, stream, conversation, limit, clock).hello
    if instance is not None and hello.instance != instance:
        raise ReplacedError("the Flux instance was replaced by another one; its jobs are unknown there")
    stream.send(conversation.watch_request())
    return Greeting(hello, _await(Watching, stream, conversation, limit, clock).snapshot)


def _await(kind: type[_Awaited], stream: Stream, conversation: Conversation, limit: float, clock: Clock) -> _Awaited:
    deadline = clock.now() + limit
    while True:
        while (message := conversation.take()) is not None:
            if isinstance(message, kind):
                return message
            if isinstance(message, Bye):
                raise EndingError(f"the agent is ending: {message.reason}")
        data = stream.receive(max(0.0, deadline - clock.now()))
        if data is None:
            raise TimeoutError(f"the agent did not answer within {limit:g} s")
        if not data:
            raise ConnectionError("the agent closed the stream")
        conversation.feed(data)


def unreachable(err: OSError) -> TransportError:
    """What it means that the first stream could not be opened, or was not greeted on."""
    if isinstance(err, ConnectionError):  # its socket was there a moment ago
        return EndingError(f"the agent is ending: {err}")
    if not isinstance(err, ProgramEnded | TimeoutError):
        return TransportError(f"the agent cannot be reached: {err}")
    if wire.NOT_YET in str(err):
        return AgentStartingError(str(err))
    if isinstance(err, ProgramEnded) and wire.RELAY_SAYS not in str(err):
        # Of a relay that never ran, or was killed: that says nothing of the agent.
        return TransportError(f"the agent cannot be reached: {err}")
    return AgentSilentError(f"the agent does not answer: {err}")
