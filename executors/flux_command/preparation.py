"""What a task becomes as a job: the cores that its memory costs, whether its directory is there, its request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

from executors import JobRequest, Session
from executors.flux_command import inner, placing, records
from executors.flux_command.asked import Submit
from executors.flux_command.memory import Groups
from executors.flux_command.sharing import shared_problem
from executors.flux_command.task import Task

#: Seconds that Flux's own limit comes after ours: it ends a job by ALRM, at which a wrapper writes 0.
BACKSTOP = 60.0
#: What is done with the memory that tasks ask for.
MEMORY = ("enforce", "cores", "ignore")


class Preparation:
    """All methods are called on the loop."""

    def __init__(
        self,
        session: Session,
        pool: Executor,
        environment: Mapping[str, str | None],
        note: Callable[[str], None],
        memory: str,
        groups_file: Path,
    ) -> None:
        """``environment``: what tasks have other than they inherit. ``note``: takes a line for the run's log.
        ``memory``: one of `MEMORY`. ``groups_file``: is told where control groups are, for the process that has to
        tidy up."""
        self._session = session
        self._pool = pool
        self._environment = environment
        self._note = note
        self._memory = memory
        self._groups_file = groups_file
        self._groups: Groups | None = None
        #: Groups that have been made.
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._nodes: list[placing.Node] = []
        #: Work directories that jobs see.
        self._places: set[bytes] = set()
        #: This machine is the whole instance.
        self.alone = False

    async def start(self) -> None:
        """Raises ExecutorsError."""
        await self._look_at_nodes()
        if self._memory == "enforce" and self.alone:
            self._groups = Groups()
            if self._groups.reason:
                self._note(f"memory of tasks is scheduled, but not enforced: {self._groups.reason}")
            else:
                self._groups_file.write_text(self._groups.directory)

    async def cores(self, asked: Submit) -> int:
        """Returns the cores that the task gets. Raises NeverFits, ExecutorsError."""
        memory = None if self._memory == "ignore" else asked.memory
        try:
            return placing.cores_for(asked.cores, asked.gpus, memory, self._nodes)
        except placing.NeverFits:
            await self._look_at_nodes()  # a MiniCluster grows
            return placing.cores_for(asked.cores, asked.gpus, memory, self._nodes)

    async def _look_at_nodes(self) -> None:
        nodes = await self._loop.run_in_executor(self._pool, self._session.nodes)
        self._nodes = placing.nodes_of(nodes)
        hosts = {node.host for node in nodes}
        self.alone = not self._session.remote and hosts == {os.uname().nodename}

    async def check_place(self, directory: bytes) -> None:
        """Once for each work directory: jobs must see it. Raises NeverFits, ExecutorsError."""
        root = os.path.dirname(os.path.dirname(directory))
        if not self._session.remote or root in self._places:
            return
        problem = await self._loop.run_in_executor(self._pool, shared_problem, self._session, os.fsdecode(directory))
        if problem:
            raise placing.NeverFits(problem)
        self._places.add(root)

    def request(self, task: Task) -> JobRequest:
        """Returns what is submitted. A task that asked for memory has its control group from now on."""
        asked = task.asked
        if self._groups is not None and asked.memory is not None:
            self._count += 1
            task.group = self._groups.make(self._count, asked.memory)
        directory = os.fsdecode(task.directory)
        log_path = os.path.join(directory, records.LOG) if asked.logged else None
        attributes = dict(asked.attributes)
        if log_path is not None:
            attributes["system.shell.options.output.mode"] = "append"
        attributes.update({f"system.shell.options.{name}": value for name, value in asked.shell_options})
        return JobRequest(
            argv=self._argv(task),
            name=asked.name,
            cwd=directory,
            env={**self._environment, **dict(asked.env)},
            cores_per_task=task.cores,
            gpus_per_task=asked.gpus or None,
            duration=None if asked.limit is None else asked.limit + BACKSTOP,
            queue=asked.queue,
            bank=asked.bank,
            urgency=asked.urgency,
            stdout=log_path,
            stderr=log_path,
            attributes=attributes,
            measure=True,
        )

    def _argv(self, task: Task) -> Sequence[str]:
        if task.group is not None:
            return task.group.command(task.asked.argv)
        if self.alone or self._session.hello.engine != "flux":
            return task.asked.argv
        return inner.command(task.asked.argv)

    def release(self, task: Task) -> None:
        """After its end: its control group goes."""
        if self._groups is not None and task.group is not None:
            self._groups.release(task.group)

    def close(self) -> None:
        """Nothing is submitted any more."""
        if self._groups is not None:
            self._groups.close()
