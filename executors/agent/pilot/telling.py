"""What a pilot tells its agent: one stream, which begins when an agent attaches. Pure, but for the loop."""

from __future__ import annotations

import asyncio
from typing import Any, Dict, List, Optional, Protocol

from .messages import Told


class Agent(Protocol):
    """The request that attached it."""

    def respond(self, payload: Told) -> None:
        """Send one message of the stream."""

    def is_ended_by(self, disconnect: Any) -> bool:
        """Whether a message of the broker says that it is gone."""


class Telling:
    """Without an agent nothing is kept: one that attaches later is told all by its inventory."""

    def __init__(self) -> None:
        self._loop = asyncio.get_event_loop()
        self._agent: Optional[Agent] = None
        self._unsent: Dict[str, List[Any]] = {}
        #: When what can wait is sent at the latest; None: nothing waits, or it is sent soon.
        self._due: Optional[asyncio.TimerHandle] = None

    @property
    def has_agent(self) -> bool:
        return self._agent is not None

    def begin(self, agent: Agent, inventory: List[Told]) -> None:
        """An agent attaches, perhaps in place of another one."""
        self._unsent = {}
        former, self._agent = self._agent, agent
        if former is not None:
            former.respond({"error": "a later agent has taken over"})
        for part in inventory:
            agent.respond(part)

    def disconnected(self, disconnect: Any) -> None:
        """A message of the broker says that somebody is gone, perhaps the agent."""
        if self._agent is not None and self._agent.is_ended_by(disconnect):
            self._agent = None

    def tell(self, kind: str, items: List[Any]) -> None:
        """Soon; ``kind``: a field of `Told` that is a list."""
        self._unsent.setdefault(kind, []).extend(items)
        self._loop.call_soon(self.flush)

    def tell_now(self, kind: str, items: List[Any]) -> None:
        self._unsent.setdefault(kind, []).extend(items)
        self.flush()

    def tell_within(self, seconds: float, kind: str, items: List[Any]) -> None:
        """With the next message, if one is sent so soon: half of the messages of short tasks are saved."""
        self._unsent.setdefault(kind, []).extend(items)
        if self._due is None:
            self._due = self._loop.call_later(seconds, self.flush)

    def flush(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        unsent, self._unsent = self._unsent, {}
        if unsent and self._agent is not None:
            self._agent.respond(unsent)  # type: ignore[arg-type]  # its fields are told one by one

    def end(self) -> None:
        """The last message, after all that was told."""
        self.flush()
        if self._agent is not None:
            self._agent.respond({"ended": True})
