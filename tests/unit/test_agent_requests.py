"""What the agent answers, without a stream and without jobs that run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import (
    Emit,
    EndReason,
    Engine,
    EngineError,
    Follower,
    OutputPosition,
    OutputSink,
    Progress,
    RecoveredJob,
    Submission,
)
from executors.agent.protocol.acklog import AckLog
from executors.agent.protocol.connection import Connection
from executors.agent.protocol.files import Files
from executors.agent.protocol.jobs import KEEP_ENDED, Job, JobTable
from executors.agent.protocol.kept_output import KeptOutput
from executors.agent.protocol.nodes import Nodes
from executors.agent.protocol.requests import OPS, Requests
from executors.agent.protocol.submissions import Submissions
from tests.support.hosts import FakeHost


class FakeEngine(Engine):
    """Accepts all, runs nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.busy: list[int] = []

    async def start(self, emit: Emit, recovered: Callable[[RecoveredJob], None]) -> str:
        return "instance"

    def submit(self, submissions: list[Submission]) -> list[Awaitable[str]]:
        return []

    async def cancel(self, job_id: str, note: str) -> None:
        self.calls.append(("cancel", job_id))

    async def kill(self, job_id: str, signum: int) -> None:
        raise EngineError("it does not run", "not-possible")

    async def resources(self) -> Any:
        return {"nodes": [{"rank": rank, "busy": rank in self.busy} for rank in range(4)]}

    async def drain(self, ranks: str, reason: str, undo: bool) -> None:
        self.calls.append(("drain", ranks))

    def follow(self, position: OutputPosition, sink: OutputSink, progress: Progress) -> Follower:
        raise EngineError("no output")

    async def start_helper(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self.calls.append(("helper", (name, command, env)))

    def forget(self, job_id: str) -> None:
        self.calls.append(("forget", job_id))

    async def stop(self, reason: EndReason) -> bool:
        return True


class FakeAgent:
    def __init__(self) -> None:
        self.refusal: str | None = None
        self.others = False
        self.left: list[Connection] = []
        self.ended: list[str] = []

    def describe(self) -> Any:
        return {"run": "r"}

    def has_other_clients(self, connection: Connection) -> bool:
        return self.others

    def leaves(self, connection: Connection) -> None:
        self.left.append(connection)

    def end_soon(self, reason: str) -> None:
        self.ended.append(reason)


class Room:
    """All that requests need, and one client."""

    def __init__(self, directory: Path, attached: bool = False) -> None:
        self.agent, self.engine, self.table = FakeAgent(), FakeEngine(), JobTable("epoch")
        self.kept_output = KeptOutput(self.engine.forget)
        self.nodes = Nodes(self.engine, attached)
        self.requests = Requests(
            self.agent,
            self.engine,
            self.table,
            Submissions(self.engine.submit, self.table, {"OF_NODE": "1", "GONE": "1"}),
            self.kept_output,
            AckLog(str(directory / "acknowledged")),
            Files(str(directory)),
            self.nodes,
        )
        self.client = Connection(FakeHost(self.table))

    async def ask(self, op: str, **fields: Any) -> Mapping[str, Any]:
        handler = self.requests.handler(op)
        assert handler is not None
        return await handler(self.client, {"id": 1, "op": op, **fields})

    def end(self, job_id: str) -> None:
        self.table.apply(job_id, "clean", 1.0, {})


def test_what_is_not_in_the_table_is_no_request(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        for op in ("", "hello", "_each", "handler", "__init__", "Submit"):
            assert room.requests.handler(op) is None
        assert all(room.requests.handler(op) is not None for op in OPS)
        assert await room.ask("info") == {"run": "r"}

    asyncio.run(run())


def test_each_job_of_a_request_is_answered_for_itself(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.table.add(Job("running"))
        room.table.add(Job("over"))
        room.end("over")
        ids = ["running", "over", "unknown"]
        assert await room.ask("cancel", ids=ids) == {"errors": {"unknown": "no such job"}}
        assert room.engine.calls == [("cancel", "running")]
        errors = {"running": "it does not run", "over": "the job has ended", "unknown": "no such job"}
        assert await room.ask("kill", ids=ids, signal=15) == {"errors": errors}

    asyncio.run(run())


def test_an_agent_that_is_ending_takes_no_jobs(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.agent.refusal = "the agent is shutting down"
        with pytest.raises(EngineError, match="shutting down") as refused:
            await room.ask("submit", items=[])
        assert refused.value.code == "closing"

    asyncio.run(run())


def test_a_helper_has_a_jobs_environment_and_its_request_is_checked(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        assert await room.ask("helper", name="a", command=["true"], env={"MORE": "2", "GONE": None}) == {}
        assert room.engine.calls == [("helper", ("a", ["true"], {"OF_NODE": "1", "MORE": "2"}))]
        wrong: list[dict[str, object]] = [
            {"name": ""},
            {"command": []},
            {"command": "true"},
            {"command": [1]},
            {"env": []},
            {"env": {"A": 1}},
        ]
        for fields in wrong:
            with pytest.raises(EngineError, match=next(iter(fields))):
                await room.ask("helper", **{"name": "a", "command": ["true"], "env": {}, **fields})
        room.agent.refusal = "the agent is shutting down"
        with pytest.raises(EngineError, match="shutting down"):
            await room.ask("helper", name="a", command=["true"], env={})
        assert len(room.engine.calls) == 1

    asyncio.run(run())


def test_the_last_one_ends_the_agent_and_any_other_leaves_it(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.agent.others = True
        assert await room.ask("shutdown", only_if_last=True) == {"stopping": False}
        assert room.agent.left == [room.client] and room.agent.ended == []
        room.agent.others = False
        assert await room.ask("shutdown", only_if_last=True, reason="done") == {"stopping": True}
        assert room.agent.ended == ["done"]

    asyncio.run(run())


def test_one_that_ends_an_unused_agent_only_stays_its_client_while_there_are_jobs(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.table.add(Job("f1"))
        assert await room.ask("shutdown", only_if_unused=True) == {"stopping": False}
        assert room.agent.left == []
        room.end("f1")
        assert await room.ask("shutdown", only_if_unused=True) == {"stopping": True}

    asyncio.run(run())


def test_output_of_a_job_that_is_forgotten_is_kept_until_its_last_reader_has_gone(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        names = [f"f{index}" for index in range(KEEP_ENDED + 2)]
        for name in names:
            room.table.add(Job(name))
            room.end(name)
        for _ in range(2):
            room.kept_output.followed("f0")
        await room.ask("ack", ids=names)
        assert room.engine.calls == [("forget", "f1")]
        room.kept_output.unfollowed("f0")
        assert room.engine.calls == [("forget", "f1")]
        room.kept_output.unfollowed("f0")
        assert room.engine.calls == [("forget", "f1"), ("forget", "f0")]

    asyncio.run(run())


def test_a_readers_offset_is_kept_for_the_next_reader(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.table.add(Job("f1"))
        await room.ask("mark", job="f1", place="1:7,3,0")
        [job] = (await room.ask("list"))["jobs"]
        assert job["place"] == "1:7,3,0"
        with pytest.raises(EngineError, match="place: is longer than 500"):
            await room.ask("mark", job="f1", place="x" * 501)
        with pytest.raises(EngineError, match="no such job: f2"):
            await room.ask("mark", job="f2", place="1")

    asyncio.run(run())


def test_ranks_are_vacated_when_their_jobs_have_ended_and_not_when_others_have(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path)
        room.engine.busy = [0, 2]
        vacating = asyncio.ensure_future(room.ask("vacate", ranks="1-2", seconds=600))
        await asyncio.sleep(0)
        assert room.engine.calls == [("drain", "1-2")] and not vacating.done()
        room.engine.busy = [0]
        room.nodes.saw([("f1", "start", 1.0, {}), ("f2", "free", 1.0, {})])
        assert await vacating == {"busy": []}
        room.engine.busy = [1]
        assert await room.ask("vacate", ranks="1", seconds=0) == {"busy": [1]}

    asyncio.run(run())


def test_an_instance_that_is_somebody_elses_is_never_drained(tmp_path: Path) -> None:
    async def run() -> None:
        room = Room(tmp_path, attached=True)
        for op in ("drain", "vacate"):
            with pytest.raises(EngineError, match="never drains it") as refused:
                await room.ask(op, ranks="0")
            assert refused.value.code == "not-possible"

    asyncio.run(run())
