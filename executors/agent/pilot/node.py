"""The pilot itself: a resident process on one node, beside its broker, which runs tasks on the cores of its holders.

An agent that attaches begins a life of its own (a higher *epoch*): from then on what an older one sends is refused, and
the new one is told of all tasks and holders that are here. What is asked and answered: `messages`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from typing import Any, Callable, Dict, List, Optional, Set

from ..engine import EndReason, EngineError, OutputPosition
from .duties import Duties
from .holder import socket_path
from .holders import Held, Holders
from .messages import Told, ToldHolder
from .output import PieceSink
from .service import Request, Service
from .telling import Telling
from .worker import HOLDER_GRACE, Worker

#: Seconds without an agent after which a pilot ends itself: a supervisor starts the next one at once.
UNWATCHED = 120.0
#: Tasks in one message of an inventory.
_PART = 200


class Node:
    """``suffix`` names this run's pilots; ``spool``: where output is kept that goes to no file, "" for a place here.

    The life of a pilot: it comes to be, answers requests, passes on what its holders say, and ends.
    """

    def __init__(self, suffix: str, spool: str) -> None:
        self._loop = asyncio.get_event_loop()
        self._suffix = suffix
        self._spool = spool
        self._directory = ""
        #: The local URI of the broker, once the service is known there.
        self._ready: asyncio.Future[str] = self._loop.create_future()
        self._done = asyncio.Event()
        self._ending = False
        self._epoch = 0
        #: Holders that are to end, though no agent has asked for that.
        self._taken: Set[int] = set()
        self._unwatched: Optional[asyncio.TimerHandle] = None
        self._service = Service(suffix, self)
        self._telling = Telling()
        self._worker: Worker
        self._duties: Duties
        self._holders: Holders

    async def run(self) -> int:
        """Until the agent, or the end of the broker, ends it; the exit code."""
        self._service.start()
        try:
            uri = await self._ready
        except EngineError as err:
            print("pilot: %s" % err, file=sys.stderr)
            return 1
        path = socket_path(uri, self._suffix)
        self._directory = path + ".d"
        shutil.rmtree(self._directory, ignore_errors=True)  # of a pilot that was killed
        os.mkdir(self._directory, 0o700)
        spool = self._spool or os.path.join(self._directory, "spool")
        os.makedirs(spool, mode=0o700, exist_ok=True)
        self._worker = Worker(spool=spool, directory=self._directory, uri=uri, left=self._left)
        self._duties = Duties(self._worker, self._telling)
        await self._worker.start(self._duties.happened, lambda _job: None)
        self._holders = Holders(path, self._worker.mark, self._came, self._told_to_end, self._died)
        self._holders.listen()
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._loop.add_signal_handler(signum, self._end_by_signal)
        self._watch()
        self._service.open()
        await self._done.wait()
        return 0

    # -- Served

    def started(self, uri: str) -> None:
        if not self._ready.done():
            self._ready.set_result(uri)

    def service_ended(self, error: EngineError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
        else:
            self._end_soon(EndReason.ENGINE_LOST)

    def disconnected(self, message: Any) -> None:
        had_agent = self._telling.has_agent
        self._telling.disconnected(message)
        if had_agent and not self._telling.has_agent:
            self._watch()

    def requested(self, request: Request) -> None:
        answers: Dict[str, Callable[[Request], None]] = {
            "attach": self._attach, "call": self._call, "read": self._read,
        }  # fmt: skip
        if self._ending:
            self._refuse(request)
        elif request.payload["epoch"] < self._epoch:
            request.respond({"error": "a later agent has taken over"})
        else:
            answers[request.name](request)

    def _refuse(self, request: Request) -> None:
        """This pilot is ending."""
        if request.name == "attach":
            request.refuse()  # who waits for the next pilot of this node goes on waiting
            return
        if request.name == "call":
            self._telling.tell("back", self._duties.not_begun(request.payload["do"]))
        request.respond({"error": "it is ending"})

    def _attach(self, request: Request) -> None:
        self._epoch = request.payload["epoch"]
        self._duties.forget_environments()
        self._telling.begin(request, self._inventory())
        self._watch()

    def _inventory(self) -> List[Told]:
        tasks = self._duties.inventory()
        parts: List[Told] = [{"inventory": tasks[start : start + _PART]} for start in range(0, len(tasks), _PART)]
        held: List[ToldHolder] = [(one.number, one.job, one.shape) for one in self._holders.all()]
        leaving = self._worker.leaving()
        mark = self._worker.mark
        return [*parts, {"complete": True, "mark": mark, "pid": os.getpid(), "holders": held, "to_leave": leaving}]

    def _call(self, request: Request) -> None:
        errors: Dict[str, List[str]] = {}
        for number, operation in enumerate(request.payload["do"]):
            try:
                if operation[0] == "end":
                    self._end_soon(EndReason(operation[1]))
                else:
                    self._duties.do(operation)
            except EngineError as err:
                errors[str(number)] = [str(err), err.code]
        request.respond({"errors": errors} if errors else {})

    def _read(self, request: Request) -> None:
        """The next piece of a task's output, for an agent that does not share the spool."""
        payload = request.payload
        piece = PieceSink(request.respond)
        position = OutputPosition(payload["task"], payload["stream"], None, payload["offset"])
        try:
            piece.follower = self._worker.follow(position, piece, lambda: self._duties.progress(position.job_id))
        except EngineError as err:
            request.respond({"offset": position.offset, "data": "", "end": True, "error": str(err)})

    # -- holders

    def _came(self, held: Held) -> None:
        if self._ending:
            self._holders.let_go(held.number)
            return
        self._worker.add_holder(held.number, held.shape, held.cpus, held.gpus)
        self._telling.tell("held", [(held.number, held.job, held.shape)])

    def _told_to_end(self, held: Held) -> None:
        """Somebody cancels it: what runs there has to go first."""
        self._take_away(held, "was told to end", HOLDER_GRACE)

    def _died(self, held: Held) -> None:
        self._take_away(held, "has died", 0.0)

    def _take_away(self, held: Held, what: str, grace: float) -> None:
        if held.number in self._taken:
            return
        self._taken.add(held.number)
        note = "its core was taken away: holder %s %s" % (held.job, what)
        if self._worker.take_away(held.number, note, grace):
            self._telling.tell("leaving", [held.number])

    def _left(self, number: int) -> None:
        self._taken.discard(number)
        self._holders.let_go(number)
        self._telling.tell("left", [number])

    # -- the end

    def _watch(self) -> None:
        """End where no agent comes."""
        if self._unwatched is not None:
            self._unwatched.cancel()
            self._unwatched = None
        if not self._telling.has_agent:
            self._unwatched = self._loop.call_later(UNWATCHED, self._end_soon, EndReason.SIGNAL)

    def _end_by_signal(self) -> None:
        """Not the agent ends it: what has not begun goes back to it, and it is to send no more."""
        if not self._ending:
            self._duties.do(["give_back"])
            leaving = dict(self._worker.leaving())
            for shape in {one.shape for one in self._holders.all()}:
                here = [one.number for one in self._holders.all() if one.shape == shape]
                self._telling.tell("leaving", here[leaving.get(shape, 0) :])
            self._end_soon(EndReason.SIGNAL)

    def _end_soon(self, reason: EndReason) -> None:
        if not self._ending:
            self._ending = True
            asyncio.ensure_future(self._end(reason))

    async def _end(self, reason: EndReason) -> None:
        """Kill first, then free."""
        await self._worker.stop(reason)
        self._telling.flush()
        self._holders.close()
        # The next pilot is started when it is told that this one has ended.
        self._service.close()
        self._telling.end()
        await self._service.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._done.set()


def main(suffix: str, spool: str) -> int:
    """Run a pilot here; its exit code. ``FLUX_URI`` names the broker of this node."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s pilot[%(process)d] %(message)s")
    return asyncio.run(_main(suffix, spool))


async def _main(suffix: str, spool: str) -> int:
    return await Node(suffix, spool).run()
