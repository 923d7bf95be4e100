"""Reads Flux's two journals, of jobs and of resources, into an `Instance`."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, FrozenSet, List, NamedTuple, Optional, Protocol, Tuple, Union

import flux
import flux.idset
from flux.resource import ResourceSet
from flux.resource.journal import ResourceJournalConsumer

from ..flux.batches import Batches
from ..flux.reactor import Reactor
from ..flux.resources import node_lines
from .instance import JOB_EVENTS, Change, Event, Instance
from .shape import Shape


class _ResourceEvent(NamedTuple):
    name: str
    context: Any
    #: R (RFC 20), where it defines that.
    resource_set: Any


class _EndOfHistory:
    """What comes after it in a journal is new."""


class JournalReader(Protocol):
    """Called on the loop."""

    def holder_changed(self, change: Change) -> None:
        """One of this run's, now or in what is read of the past; see `Journals.known`."""

    def changed(self) -> None:
        """The instance is not as it was."""


class Journals:
    """``known`` is done when all that was before is in ``instance``; the reader is told of changes after that."""

    def __init__(self, reactor: Reactor, instance: Instance, reader: JournalReader) -> None:
        self._reactor = reactor
        self._instance = instance
        self._reader = reader
        self.known: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        #: Journals whose past is not known yet.
        self._unknown = 2
        self._events: Batches[Union[Event, _ResourceEvent, _EndOfHistory]] = Batches(reactor.to_loop, self._deliver)

    def watch(self) -> None:
        """Begin with the journal of resources; that of jobs is the engine's, see `on_job`."""

        def on_resource(event: Any) -> None:
            if event is None:
                return  # the end of the stream, of which the reactor hears too
            if event.is_empty():
                self._events.put(_EndOfHistory())
            else:
                self._events.put(_ResourceEvent(event.name, event.context, event.R))

        def begin(handle: flux.Flux) -> None:
            self._consumer = ResourceJournalConsumer(handle, include_sentinel=True)
            self._consumer.start()
            self._consumer.set_callback(on_resource)

        self._reactor.call(begin)

    def on_job(self, event: Any) -> None:
        """In the reactor's thread: an event of the job manager's journal."""
        if event is None:
            return
        if event.is_empty():
            self._events.put(_EndOfHistory())
        elif event.name in JOB_EVENTS:
            jobspec = event.jobspec if event.name == "submit" else None
            nodes = tuple(_shapes(event.R)) if event.name == "alloc" else ()
            self._events.put(Event(int(event.jobid), event.name, event.timestamp, event.context, jobspec, nodes))

    def _deliver(self, events: List[Union[Event, _ResourceEvent, _EndOfHistory]]) -> None:
        for event in events:
            if isinstance(event, Event):
                change = self._instance.job_event(event)
                if change is not None:
                    self._reader.holder_changed(change)
            elif isinstance(event, _ResourceEvent):
                nodes, matching = _shapes(event.resource_set), functools.partial(_matching, event.resource_set)
                self._instance.resource_event(event.name, event.context, nodes, _ranks_of, matching)
            else:
                self._unknown -= 1
                if self._unknown == 0:
                    self.known.set_result(None)
        if self.known.done():
            self._reader.changed()


def _shapes(resource_set: Any) -> List[Tuple[int, Shape]]:
    """What an R object (RFC 20) has of each rank."""
    return [(rank, Shape(cores, gpus)) for rank, _, cores, gpus in node_lines(resource_set)]


def _matching(resource_set: Any, constraint: Any) -> Optional[FrozenSet[int]]:
    """The ranks of an R object that match a constraint (RFC 31); None: it cannot be read."""
    try:
        return frozenset(map(int, ResourceSet(resource_set).copy_constraint(constraint).ranks))
    except (ValueError, TypeError, OSError):
        return None  # Flux itself refuses such a job, or knows more than its bindings


def _ranks_of(idset: str) -> Any:
    """The ranks of an idset (RFC 22)."""
    return {int(rank) for rank in flux.idset.IDset(idset)}
