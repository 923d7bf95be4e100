"""The pilot as a service of its broker: the agent's requests come here, by Flux's messages, and answers go back."""

from __future__ import annotations

import errno
import json
from typing import Any, List, Protocol

import flux
import flux.constants
from flux.core.inner import raw

from ..engine import EngineError
from ..flux.batches import Batches
from ..flux.reactor import Reactor
from .messages import topic

#: Seconds for what was answered last to be sent.
_STOP_LIMIT = 5.0


class Request:
    """One request. It is answered by `respond`: once, or again and again where the answer is a stream."""

    def __init__(self, reactor: Reactor, message: Any) -> None:
        self._reactor = reactor
        self._message = message
        #: Its name, without the service's.
        self.name: str = message.topic.rpartition(".")[2]
        self.payload: Any = message.payload

    def respond(self, payload: Any) -> None:
        """``payload``: what JSON can hold."""
        text = json.dumps(payload, separators=(",", ":"))
        self._reactor.call(lambda handle: handle.respond(self._message, text) and None)

    def refuse(self) -> None:
        """Answer as the broker does where there is no such service."""
        self._reactor.call(self._refuse)

    def _refuse(self, handle: flux.Flux) -> None:
        raw.flux_respond_error(handle.handle, self._message.handle, errno.ENOSYS, None)

    def is_ended_by(self, disconnect: Any) -> bool:
        """Whether a message says that the sender of this is gone."""
        return bool(raw.flux_disconnect_match(disconnect.handle, self._message.handle))


class Served(Protocol):
    """What is behind the service. Called on the loop."""

    def started(self, uri: str) -> None:
        """The service is known to the broker, whose local URI is given; requests wait for `Service.open`."""

    def requested(self, request: Request) -> None:
        """A request has come."""

    def disconnected(self, message: Any) -> None:
        """A sender of requests is gone, see `Request.is_ended_by`."""

    def service_ended(self, error: EngineError) -> None:
        """It could not start, or the connection to the broker is lost."""


class Service:
    """``suffix`` is its name. Only the instance's owner may ask."""

    def __init__(self, suffix: str, served: Served) -> None:
        self._suffix = suffix
        self._served = served
        self._reactor = Reactor(self._begin, lambda error, _refused: served.service_ended(error))
        self._requests: Batches[Any] = Batches(self._reactor.to_loop, self._deliver, is_open=False)

    def start(self) -> None:
        self._reactor.start()

    def open(self) -> None:
        """Deliver requests from now on, those first that have waited."""
        self._requests.open()

    def close(self) -> None:
        """Another one may serve under this name, once what was told and answered so far is sent."""
        self._reactor.call(lambda handle: handle.service_unregister(self._suffix).get() and None)

    async def stop(self) -> None:
        """What was answered is sent before."""
        await self._reactor.stop(_STOP_LIMIT)

    # -- Flux's thread

    def _begin(self, handle: flux.Flux) -> None:
        try:
            handle.service_register(self._suffix).get()
        except OSError as err:
            if err.errno == errno.EEXIST:
                raise EngineError("there is one on this node") from None
            raise
        self._watchers = [
            handle.msg_watcher_create(receive, flux.constants.FLUX_MSGTYPE_REQUEST, topic(self._suffix, name))
            for name, receive in (
                ("attach", self._receive),
                ("call", self._receive),
                ("read", self._receive),
                ("disconnect", self._disconnected),
            )
        ]
        for watcher in self._watchers:
            watcher.start()
        uri = str(handle.attr_get("local-uri"))
        self._reactor.to_loop(lambda: self._served.started(uri))

    def _receive(self, _handle: flux.Flux, _watcher: Any, message: Any, _args: Any) -> None:
        self._requests.put(message)

    def _disconnected(self, _handle: flux.Flux, _watcher: Any, message: Any, _args: Any) -> None:
        self._reactor.to_loop(lambda: self._served.disconnected(message))

    # -- on the loop

    def _deliver(self, messages: List[Any]) -> None:
        for message in messages:
            self._served.requested(Request(self._reactor, message))
