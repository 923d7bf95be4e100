"""The tasks of a session, without a process around them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from executors import RunId, load_config, open_session
from executors.efficiency import UsageTable
from executors.flux_command import records
from executors.flux_command.asked import Submit
from executors.flux_command.preparation import Preparation
from executors.flux_command.server import COLUMNS
from executors.flux_command.tasks import Tasks

WRAPPER = "#!/bin/bash\necho once >> ran\nprintf 0 > .exitcode\n"


class Heard:
    """Answers, as they are heard; ``there``: whether anybody listens."""

    def __init__(self, there: bool = True) -> None:
        self.there = there
        self.answers: list[tuple[int, str]] = []
        self.came = asyncio.Event()

    def __call__(self, code: int, text: str) -> bool:
        self.answers.append((code, text))
        self.came.set()
        return self.there


def with_tasks(tmp_path: Path, runtime: Path, test: Callable[[Tasks], Awaitable[None]]) -> None:
    environ = {**os.environ, "FLUX_OPERATOR_RUNTIME_DIR": str(runtime)}
    config = load_config(environ=environ, options={"run.engine": "embedded", "run.provisioner": "local"})
    with open_session(RunId("test", os.urandom(4).hex()), config, environ=environ) as session:

        async def run() -> None:
            pool = ThreadPoolExecutor(2)
            table = UsageTable(tmp_path / "usage.tsv", COLUMNS, "task", 2**20)
            preparation = Preparation(session, pool, {}, print, "cores", tmp_path / "groups")
            tasks = Tasks(session, preparation, records.Table(str(tmp_path / "table")), table, pool, print)
            await tasks.start(lambda: None, lambda: None)
            await test(tasks)
            assert await tasks.settled(30)
            await asyncio.get_running_loop().run_in_executor(None, session.close)
            pool.shutdown()

        asyncio.run(run())


def work_of(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / ".command.run").write_text(WRAPPER)
    return work


ASKED = Submit(name="nf-ONE", argv=("/bin/bash", ".command.run"), logged=True)


def test_a_task_whose_answer_nobody_heard_is_not_run_twice(tmp_path: Path, runtime: Path) -> None:
    work = work_of(tmp_path)

    async def test(tasks: Tasks) -> None:
        gone, again = Heard(there=False), Heard()
        await tasks.submit(ASKED, os.fsencode(work), 1, gone)
        await asyncio.wait_for(gone.came.wait(), 30)
        assert await tasks.settled(30)
        await tasks.submit(ASKED, os.fsencode(work), 1, again)
        assert again.answers == gone.answers and again.answers[0][0] == 0
        assert list(tasks.states()) == [f"{again.answers[0][1].strip()} C"]

    with_tasks(tmp_path, runtime, test)
    assert (work / "ran").read_text() == "once\n"


def test_a_task_that_is_asked_for_while_it_is_being_submitted_is_one(tmp_path: Path, runtime: Path) -> None:
    work = work_of(tmp_path)

    async def test(tasks: Tasks) -> None:
        first, second = Heard(), Heard()
        await asyncio.gather(
            tasks.submit(ASKED, os.fsencode(work), 1, first), tasks.submit(ASKED, os.fsencode(work), 1, second)
        )
        await asyncio.wait_for(second.came.wait(), 30)
        assert [code for code, _ in second.answers] == [0] and not first.answers

    with_tasks(tmp_path, runtime, test)
    assert (work / "ran").read_text() == "once\n"


def test_the_tasks_of_a_process_that_has_ended_are_cancelled_and_forgotten(tmp_path: Path, runtime: Path) -> None:
    work = work_of(tmp_path)
    (work / ".command.run").write_text("sleep 100\n")

    async def test(tasks: Tasks) -> None:
        heard = Heard()
        await tasks.submit(ASKED, os.fsencode(work), 7, heard)
        await asyncio.wait_for(heard.came.wait(), 30)
        tasks.owner_ended(8)
        assert next(iter(tasks.states())).split()[1] in "SR"
        tasks.owner_ended(7)
        assert await tasks.settled(30)

    with_tasks(tmp_path, runtime, test)
    assert (work / ".exitcode").read_text() == "143"
