"""The session process of a Nextflow run: owns its `executors.Session`, and answers the command ``flux``.

It lives as long as the processes that it is for: who has started it, and every Nextflow that submits (its JVM, not its
launcher). When the last of them has ended, however that came, jobs are cancelled, results are written, and the instance
is released.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from executors import ExecutorsError, RunConfig, RunId, Session, end_run, load_config, open_session
from executors.config import ORPHAN_TIMEOUT_ALONE
from executors.efficiency import UsageTable
from executors.flux_command import arguments, environment, holders, ingest, records
from executors.flux_command.asked import Cancel, Jobs, Other, Refused, Submit
from executors.flux_command.places import SessionDirectory
from executors.flux_command.preparation import Preparation
from executors.flux_command.sharing import shared_problem
from executors.flux_command.tasks import Tasks
from executors.interrupts import none_missed

log = logging.getLogger(__name__)

#: Seconds for cancelled tasks to end (Flux: TERM, 5 s, KILL) before the instance is released.
_CANCEL_LIMIT = 8.0
#: Threads for the files of tasks.
_THREADS = 4
#: Words from our own commands rather than from Nextflow.
LEAVE, JOIN = "@leave", "@join"
COLUMNS = (
    "task", "job", "outcome", "exit", "node", "queue_wait_s", "wall_s", "cores", "cpu_s", "cpu_efficiency",
    "mem_asked_mb", "max_rss_mb", "directory",
)  # fmt: skip
_LONGEST_REQUEST = 4 * 2**20


class Server:
    """See the module. All methods are called on the loop."""

    def __init__(
        self, session: Session, directory: SessionDirectory, report: Path, environ: Mapping[str, str], memory: str
    ) -> None:
        """``report``: path of the run's log and table, without suffix. ``environ``: what Nextflow was started with."""
        self._session = session
        self._directory = directory
        self._log = report.with_suffix(".log")
        self._environ = environ
        self._efficiency = UsageTable(report.with_suffix(".tsv"), COLUMNS, "task", 2**20)
        self._pool = ThreadPoolExecutor(_THREADS, "flux-command-files")
        self._loop = asyncio.get_running_loop()
        self._table = records.Table(str(directory.table))
        given = self._task_environment()
        preparation = Preparation(session, self._pool, given, self.note, memory, directory.groups)
        self._tasks = Tasks(session, preparation, self._table, self._efficiency, self._pool, self.note)
        self._holders = holders.Holders(self._loop, self._holder_ended)
        self._over = asyncio.Event()
        self._for_shell = False
        self._owners: set[int] = set()
        #: Those of them whose tasks are meant to outlive them, and whether such a one has ended.
        self._keepers: set[int] = set()
        self._kept = False
        #: Connections that wait for the end, to be told how it went.
        self._leaving: list[_Connection] = []

    async def run(self, holds: list[int], *, for_shell: bool) -> None:
        """Until nobody holds it; one that is ``for_shell`` also until its instance is ended. Raises ExecutorsError,
        OSError."""
        await self._tasks.start(self._lost, self._idle)
        self._for_shell = for_shell
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self._loop.add_signal_handler(signum, self._over.set)
        for pid in holds:
            if not self._holders.add(pid):
                self._holder_ended(pid)
        server = await self._loop.create_unix_server(
            partial(_Connection, self), str(self._directory.socket), backlog=512
        )
        os.chmod(self._directory.socket, 0o600)
        try:
            await self._over.wait()
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):
                self._directory.socket.unlink()
            await self._end()

    def note(self, text: str) -> None:
        """A line in the run's log."""
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", errors="surrogateescape") as out:
                out.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as err:
            log.warning("%s: %s (%s)", self._log, text, err)

    # -- requests

    def handle(self, words: list[str], connection: _Connection) -> None:
        """One request: the parent's pid, the working directory, the arguments."""
        parent, cwd, argv = int(words[0]), words[1], words[2:]
        if argv[0] in (LEAVE, JOIN):
            self._about_a_holder(argv[0], int(argv[1]), connection)
            return
        try:
            asked = arguments.read(argv)
        except Refused as err:
            self._tasks.refuse(err.task, os.fsencode(cwd), parent, connection.reply, str(err), 2)
            return
        match asked:
            case Submit():
                if not self._holders.add(parent):
                    connection.reply(1, "flux: the process that submits this has ended\n")
                    return
                self._add_owner(parent)
                coming = self._tasks.submit(asked, os.fsencode(cwd), parent, connection.reply)
                connection.task = self._loop.create_task(self._submit(coming, connection))
            case Jobs():
                connection.reply(0, "".join(f"{line}\n" for line in self._tasks.states()))
            case Cancel(ids):
                if not self._tasks.knows(ids):
                    connection.pass_on()  # a user's own job
                    return
                self._tasks.cancel(ids)
                connection.reply(0, "")
            case Other():
                connection.pass_on()

    def _add_owner(self, pid: int) -> None:
        if pid not in self._owners:
            self._owners.add(pid)
            if holders.keeps_its_tasks(pid):
                self._keepers.add(pid)

    async def _submit(self, coming: Awaitable[None], connection: _Connection) -> None:
        try:
            await coming
        except Exception as err:  # a defect here: it is this task's failure, and Nextflow must not wait
            log.exception("a submission failed")
            connection.reply(1, f"flux: the submission failed: {err!r}\n")

    def _about_a_holder(self, word: str, pid: int, connection: _Connection) -> None:
        if word == JOIN:
            connection.reply(0 if self._holders.add(pid) else 1, "")
            return
        self._holders.remove(pid)
        self._find_holders(without=pid)
        if self._holders or (self._kept and self._tasks.busy):
            connection.reply(0, f"tasks go on in the background; their log: {self._log}\n")
        else:
            self._leaving.append(connection)
            self._over.set()

    def _holder_ended(self, pid: int) -> None:
        self._owners.discard(pid)
        keep = pid in self._keepers
        self._kept = self._kept or keep
        self._tasks.owner_ended(pid, keep=keep)
        if self._session.lost is not None:
            self._lost()
        if not self._holders:
            self._find_holders(without=pid)
        if not self._holders:
            self._end_unless_kept()

    def _end_unless_kept(self) -> None:
        if not (self._kept and self._tasks.busy):
            self._over.set()

    def _idle(self) -> None:
        if self._kept and not self._holders:
            self._over.set()

    def _lost(self) -> None:
        """The instance is gone. A Nextflow that has tasks here is told so when it asks."""
        self.note(f"the instance is gone: {self._session.lost}")
        if self._for_shell and not self._owners:
            self._over.set()

    def _find_holders(self, without: int) -> None:
        """The process that was started with our command in front of its PATH."""
        for pid in holders.processes_of_session(str(self._directory.path)):
            if pid not in (without, os.getpid()):
                self._holders.add(pid)

    def _task_environment(self) -> Mapping[str, str | None]:
        """On this machine ``flux run`` inside a task gets the cores of the task."""
        given = environment.for_tasks(self._environ, self._session.run_name, remote=self._session.remote)
        if not self._session.remote and self._session.hello.engine == "flux" and self._directory.task_bin.exists():
            given["PATH"] = f"{self._directory.task_bin}:{self._environ.get('PATH', '')}"
        return given

    # -- the end

    async def _end(self) -> None:
        self._holders.close()
        self._tasks.end_all()
        await self._tasks.settled(_CANCEL_LIMIT)
        try:
            await self._loop.run_in_executor(None, self._session.release)
        except ExecutorsError as err:
            self.note(f"the end of the instance: {err}")
        if not await self._tasks.settled(_CANCEL_LIMIT):
            self.note("some tasks have no result; their directories are in the table of tasks")
        self._tasks.close()
        self._pool.shutdown()
        self._table.close()
        lines = [self._efficiency.summary()] if self._efficiency.rows else []
        if self._log.exists():
            lines.append(f"log: {self._log}")
        for line in lines:
            self.note(line)
        for connection in self._leaving:
            connection.reply(0, "".join(f"{line}\n" for line in lines))


class _Connection(asyncio.Protocol):
    """One request and its answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        #: Held, since the loop itself does not.
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > _LONGEST_REQUEST and self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        words = os.fsdecode(bytes(self._data)).split("\0")
        self._data.clear()
        if len(words) < 3 or not words[0].isdigit():
            return False  # not our command
        self._server.handle(words, self)
        return True

    def reply(self, code: int, text: str) -> bool:
        return self._write(b"%d" % code + text.encode("utf-8", "surrogateescape"))

    def pass_on(self) -> None:
        self._write(b"p")

    def _write(self, data: bytes) -> bool:
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        # asyncio notices that the other side is gone in a write only.
        heard = not self._transport.is_closing()
        self._transport.close()
        return heard


# -- the process


def serve() -> int:
    """The process: settings as JSON on stdin, news as JSON lines on stdout until it is ready; the exit code."""
    settings = json.load(sys.stdin)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    tell = os.fdopen(os.dup(1), "w")
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(2, 1)

    def news(**fields: object) -> None:
        try:
            print(json.dumps(fields), file=tell, flush=True)
        except (BrokenPipeError, ValueError):
            pass  # nobody listens any more; who has started us is looked for when we are ready

    directory = SessionDirectory(Path(settings["directory"]))
    os.environ.setdefault("FLUX_CONF_DIR", str(directory.flux_config))
    try:
        config = config_of(settings)
        with none_missed():
            session = open_session(
                RunId(*settings["run"]), config, environ=dict(os.environ), report_progress=lambda line: news(say=line)
            )
    except (ExecutorsError, OSError) as err:
        news(failed=str(err), kind=type(err).__name__)
        shutil.rmtree(directory.path, ignore_errors=True)
        return 1
    except KeyboardInterrupt:
        shutil.rmtree(directory.path, ignore_errors=True)
        return 130
    try:
        with session:
            try:
                asyncio.run(_serve(session, directory, settings, news, tell))
            finally:
                for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(signum, lambda *_: None)  # it is ending; asyncio has let go of them
    except (ExecutorsError, OSError) as err:
        news(failed=str(err), kind=type(err).__name__)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(directory.path, ignore_errors=True)
        errors = Path(settings["report"]).with_suffix(".err")
        with contextlib.suppress(OSError):
            if not errors.stat().st_size:
                errors.unlink()
    return 0


async def _serve(
    session: Session, directory: SessionDirectory, settings: Mapping[str, Any], news: Callable[..., None], tell: TextIO
) -> None:
    """``settings``: what `launch.start` has put together, JSON."""
    report = Path(settings["report"])
    server = Server(session, directory, report, os.environ, settings["memory"])
    work = settings.get("work")
    if session.remote and work is not None:
        problem = await asyncio.get_running_loop().run_in_executor(None, shared_problem, session, work)
        if problem:
            news(failed=problem, kind="ConfigError")
            raise SystemExit(1)
    logging.basicConfig()
    news(ready={"run": session.run_name, "engine": session.hello.engine, "uri": session.hello.uri})
    tell.close()
    await server.run(settings["holders"], for_shell=settings["shell"])


def config_of(settings: Mapping[str, Any]) -> RunConfig:
    """The run's config, for a session that nobody comes back to, and tasks that come one by one. Raises ConfigError."""
    config = load_config(settings["config"], options=settings["options"])
    config = config.with_default("run.orphanTimeout", ORPHAN_TIMEOUT_ALONE).with_default("run.pilot", "auto")
    return ingest.one_by_one(config)


def end_left(directory: str) -> int:
    """End the instance of a session that is dead."""
    settings = json.loads((Path(directory) / "session.json").read_text())
    try:
        end_run(settings["name"], config_of(settings))
    except ExecutorsError as err:
        print(err, file=sys.stderr)
        return 1
    return 0
