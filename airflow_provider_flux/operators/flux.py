"""FluxOperator: one task, one Flux job in the DAG run's instance."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    BaseOperator,
    conf,
    context_to_airflow_vars,
    mask_secret,
)

from airflow_provider_flux.hook import FluxHook, joinable
from airflow_provider_flux.links import FluxJobLink, FluxMiniClusterLink, push_links
from airflow_provider_flux.minicluster import DEFAULT_CONNECTION, MiniCluster, minicluster_of
from airflow_provider_flux.names import JobKeys, job_keys
from airflow_provider_flux.operators.failures import clear_errors
from airflow_provider_flux.operators.minicluster import folder_of
from airflow_provider_flux.outcome import FluxJobCancelled, FluxRequestError, raise_for, timed_out
from airflow_provider_flux.output import STREAMS, OutputError, OutputLog, Result, xcom_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from executors import JobHandle, JobRequest, JobResult, Session

#: Seconds that Airflow gives `on_kill` before it sends SIGKILL are five.
_KILL_LIMIT = 3.0
#: Seconds for a cancelled job of an earlier try to be gone.
_REPLACE_LIMIT = 120.0
#: Seconds that the trigger has to cancel a job that is over its execution_timeout, before Airflow ends the trigger.
_TIMEOUT_GRACE = 60
_RESULTS = ("last_line", "json", "none")
_SHELL = ("/bin/sh", "-c")


class FluxOperator(BaseOperator):
    """Runs a command as a Flux job in the DAG run's own instance (on Kubernetes: its MiniCluster).

    The instance is made by the first task that needs it and shared by all tasks of the run; Flux queues the jobs, so
    no pool is needed.

    :param command: for the shell (a string), or the program and its arguments (a list). (templated)
    :param nodes, ntasks, cores_per_task, gpus_per_task, exclusive: what the job asks Flux for. (templated)
    :param time_limit: of the job, in seconds or as a timedelta. Queueing does not count. (templated)
    :param env: variables that are added to the job's environment. (templated)
    :param secret_env: the same for secrets: masked in logs, in no jobspec, XCom or rendered template. Templates in its
        values are rendered when the task runs, for instance ``{{ conn.s3.password }}``.
    :param cwd: working directory of the job. Default: a directory for temporary files. (templated)
    :param cluster: a `FluxMiniCluster` or FluxCreateMiniClusterOperator. Default: the one around the task, else the
        DAG run's own.
    :param config: pipeline config of the DAG run's own MiniCluster: a path relative to the DAG file, or the content.
        All tasks of the run must give the same; set it in ``default_args``. Default: the connection's.
    :param flux_queue: Flux queue (``queue`` is Airflow's own). :param bank: Flux bank. :param urgency: 0 to 31.
    :param constraint: RFC 31 constraint of the job.
    :param result: what becomes the XCom: ``last_line`` of stdout that is not blank; ``json``: that line, parsed;
        ``none``.
    :param skip_on_exit_code: exit codes that mark the task skipped.
    :param deferrable: wait in the triggerer, not in a worker.
    :param durable: a retry takes over the job of a try whose worker was lost. False: each try has a job of its own.
    :param get_logs: write the job's output into the task's log as it comes.
    :param wait: False ends the task once the job is submitted; its XCom is for `FluxJobSensor`.
    """

    template_fields: Sequence[str] = (
        "command", "nodes", "ntasks", "cores_per_task", "gpus_per_task", "time_limit", "env", "cwd", "config",
        "flux_conn_id", "flux_queue", "bank", "urgency",
    )  # fmt: skip
    template_fields_renderers = {"command": "bash", "env": "json"}
    template_ext: Sequence[str] = (".sh", ".bash")
    operator_extra_links = (FluxJobLink(), FluxMiniClusterLink())
    ui_color = "#e1eaf2"

    def __init__(
        self,
        *,
        command: str | Sequence[str],
        nodes: int | str | None = None,
        ntasks: int | str = 1,
        cores_per_task: int | str | None = None,
        gpus_per_task: int | str | None = None,
        exclusive: bool = False,
        time_limit: float | str | timedelta | None = None,
        env: Mapping[str, str] | None = None,
        secret_env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        cluster: Any = None,
        config: str | Mapping[str, Any] | None = None,
        flux_conn_id: str = DEFAULT_CONNECTION,
        flux_queue: str | None = None,
        bank: str | None = None,
        urgency: int | str | None = None,
        constraint: Mapping[str, Any] | None = None,
        result: Literal["last_line", "json", "none"] = "last_line",
        skip_on_exit_code: int | Collection[int] | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        get_logs: bool = True,
        wait: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if result not in _RESULTS:
            raise ValueError(f"result: {result!r} must be one of {', '.join(_RESULTS)}")
        self.command = command
        self.nodes = nodes
        self.ntasks = ntasks
        self.cores_per_task = cores_per_task
        self.gpus_per_task = gpus_per_task
        self.exclusive = exclusive
        self.time_limit = time_limit
        self.env = env
        self.secret_env = secret_env
        self.cwd = cwd
        self.cluster = cluster
        self.config = config
        self.flux_conn_id = flux_conn_id
        self.flux_queue = flux_queue
        self.bank = bank
        self.urgency = urgency
        self.constraint = constraint
        self.result = result
        self.skip_on_exit_code = _codes(skip_on_exit_code)
        self.deferrable = deferrable
        self.durable = durable
        self.get_logs = get_logs
        self.wait = wait
        #: See `links`.
        self.flux_links: dict[str, str] = {}
        self._session: Session | None = None
        self._handle: JobHandle | None = None
        self._killed = False

    # -- Airflow's side

    def execute(self, context: Context) -> Any:
        ti = context["ti"]
        hook = FluxHook(self.flux_conn_id)
        with clear_errors():
            request = self.job_request(context)
            minicluster = self._minicluster()
            session = hook.open_session(minicluster, ti.dag_id, ti.run_id, folder_of(self), self.log.info)
            self._session = session
        try:
            if not session.remote and request.cwd is None:
                # Not the worker's own, which may be another one at the next try.
                request = replace(request, cwd=tempfile.gettempdir())
            with clear_errors():
                handle = self._submit(session, request, self._keys(context))
            self.flux_links = push_links(
                ti, hook.settings(), name=session.run_name, instance=session.hello.instance, job=str(handle.id)
            )
            if self.deferrable or not self.wait:
                options = joinable(hook.run_config(minicluster.config, folder_of(self)))
                job = {
                    "run_name": session.run_name,
                    "options": options,
                    "flux_conn_id": self.flux_conn_id,
                    "job_id": handle.id,
                }
            else:
                result, output = self._follow(session, handle)
        finally:
            session.close(release=False)
            self._session = None
        if not self.wait:
            return job
        if self.deferrable:
            self._defer(job, ti)
        return self._finish(f"job {handle.id}", result, output.result, output.tail)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Go on after the trigger. ``event``: see `FluxJobTrigger`."""
        from executors import JobResult

        what = f"job {event['job_id']}"
        self.flux_links = event["links"]
        if event["timed_out"]:
            raise timed_out(what)
        line = event["result_line"]
        return self._finish(what, JobResult.of(event["result"]), None if line is None else Result(*line), event["tail"])

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Where the trigger itself has failed, its job has nobody any more: cancel it before the task fails."""
        if next_method == "__fail__":
            self._cancel_by_key(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Cancel the job. Runs in a signal handler, in the middle of `execute`, which goes on and hears of the end."""
        self._killed = True
        handle = self._handle
        if handle is None:
            return
        self.log.info("cancelling job %s: the task was killed", handle.id)
        # In a thread: the code that the signal has interrupted may hold the locks that this needs.
        thread = threading.Thread(target=handle.cancel, args=("the Airflow task was killed",), daemon=True)
        thread.start()
        thread.join(_KILL_LIMIT)

    def dry_run(self) -> None:
        """Print the job that would be submitted, and submit nothing."""
        import json

        from executors.job import Defaults, Environments, make_item

        super().dry_run()
        item = make_item(self.job_request(None), Defaults(), Environments(None), "/")
        self.log.info("jobspec:\n%s", json.dumps(item.jobspec, indent=2))

    # -- the job

    def job_request(self, context: Context | None) -> JobRequest:
        """The job that this task asks for. Raises RequestError with everything that is wrong, field by field."""
        from executors import JobRequest, RequestError

        problems: list[str] = []

        def number(name: str) -> int | None:
            value = getattr(self, name)
            if value is None or (isinstance(value, str) and value.strip() in ("", "None")):
                return None
            try:
                return int(value)
            except (TypeError, ValueError):
                problems.append(f"{name}: {value!r} is not a whole number")
                return None

        request = JobRequest(
            argv=_argv(self.command, problems),
            name=self.task_id,
            nodes=number("nodes"),
            tasks=number("ntasks") or 1,
            cores_per_task=number("cores_per_task"),
            gpus_per_task=number("gpus_per_task"),
            exclusive=self.exclusive,
            duration=_seconds(self.time_limit, problems),
            env={**self._context_variables(context), **{k: str(v) for k, v in (self.env or {}).items()}},
            secret_env=self._secrets(context),
            cwd=self.cwd or None,
            queue=self.flux_queue,
            bank=self.bank,
            urgency=number("urgency"),
            constraint=self.constraint,
        )
        if problems:
            raise RequestError(problems, self.task_id)
        return request

    def _context_variables(self, context: Context | None) -> dict[str, str]:
        """AIRFLOW_CTX_*, as Airflow's own operators give them to what they run."""
        if context is None:
            return {}
        found = context_to_airflow_vars(context, in_env_var_format=True)
        return {name: str(value) for name, value in found.items()}

    def _secrets(self, context: Context | None) -> dict[str, str]:
        if not self.secret_env or context is None:
            return dict.fromkeys(self.secret_env or {}, "***")
        # Here and not as a template field, since Airflow stores and shows what those are rendered to.
        rendered = self.render_template(dict(self.secret_env), context)
        for value in rendered.values():
            if value:
                mask_secret(value)
        return {name: str(value) for name, value in rendered.items()}

    def _minicluster(self) -> MiniCluster:
        try:
            found = minicluster_of(self, self.cluster)
        except ValueError as err:
            raise FluxRequestError(str(err)) from None
        if found is None:
            return MiniCluster("", self.flux_conn_id, self.config)
        if self.config is not None and self.config != found.config:
            raise FluxRequestError("config: give it to the FluxMiniCluster around the task, not to the task")
        self.flux_conn_id = found.flux_conn_id
        return found

    def _keys(self, context: Context) -> JobKeys:
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        attempt = None if self.durable else ti.try_number
        return job_keys(
            ti.dag_id,
            ti.run_id,
            ti.task_id,
            map_index,
            retries=self.retries or 0,
            max_tries=max(ti.max_tries or 0, 0),
            attempt=attempt,
        )

    def _submit(self, session: Session, request: JobRequest, keys: JobKeys) -> JobHandle:
        """A job under this try's key: the one that an earlier try has left, where it is of use, else a new one."""
        request = replace(request, key=keys.now)
        left = [job for job in session.find([keys.now, *keys.earlier]) if not job["acked"]]
        # What a cleared task has left is of no use, nor is what has ended badly: a retry is there to do it again.
        useless = [job for job in left if job["key"] != keys.now or not _of_use(job)]
        self._drop(session, useless)
        handle = self._hand_over(session, request)
        if handle.done() and handle.id is None:
            result = handle.result()
            if result.exception is not None and result.exception.type == "key":
                self.log.info("the job of an earlier try runs other work than this try asks for; it is replaced")
                self._drop(session, [job for job in session.find([keys.now]) if not job["acked"]])
                handle = self._hand_over(session, request)
        if handle.id is None:
            raise_for(handle.result(), "the job")
        took_over = any(job["id"] == handle.id for job in left)
        taken = "taken over from an earlier try" if took_over else "submitted"
        self.log.info("job %s in %s: %s", handle.id, session.run_name, taken)
        if self._killed:
            handle.cancel("the Airflow task was killed")
        return handle

    def _hand_over(self, session: Session, request: JobRequest) -> JobHandle:
        [self._handle] = session.submit([request])
        self._handle.wait_submitted()
        return self._handle

    def _drop(self, session: Session, jobs: Sequence[Mapping[str, Any]]) -> None:
        active = [job["id"] for job in jobs if job["result"] is None]
        ended = [job["id"] for job in jobs if job["result"] is not None]
        if active:
            self.log.info("cancelling what an earlier run of this task has left: job %s", ", ".join(active))
            session.cancel_and_wait(active, _REPLACE_LIMIT)
        if ended:
            session.request("ack", ids=ended)

    def _follow(self, session: Session, handle: JobHandle) -> tuple[JobResult, OutputLog]:
        """Log the job's output until its end."""
        assert handle.id is not None
        output = OutputLog(self._limit(), self._marker())
        if self.get_logs or self.result != "none":
            pieces: queue.SimpleQueue[tuple[str, bytes | BaseException | None]] = queue.SimpleQueue()
            stops = [
                session.follow(handle.id, stream, 0, partial(_put, pieces, stream)) for stream in self._streams()
            ]  # fmt: skip
            open_streams = len(stops)
            try:
                while open_streams:
                    stream, piece = pieces.get()
                    if isinstance(piece, bytes):
                        self._log_lines(output.feed(stream, piece))
                        continue
                    open_streams -= 1
                    if piece is not None:
                        self.log.warning("the rest of %s is not to be had: %s", stream, piece)
            finally:
                for stop in stops:
                    stop()
            self._log_lines(output.end())
        return handle.result(), output

    def _streams(self) -> Sequence[str]:
        return STREAMS if self.get_logs else STREAMS[:1]

    def _log_lines(self, lines: Sequence[str]) -> None:
        if self.get_logs:
            for line in lines:
                self.log.info("%s", line)

    def _defer(self, job: Mapping[str, Any], ti: Any) -> None:
        from airflow_provider_flux.triggers.job import FluxJobTrigger

        limit = self.execution_timeout
        trigger = FluxJobTrigger(
            **job,
            attempt=ti.try_number,
            deadline=None if limit is None else time.time() + limit.total_seconds(),
            get_logs=self.get_logs,
            limit=self._limit(),
            marker=self._marker(),
            want_result=self.result != "none",
            links=self.flux_links,
        )
        # Airflow's own limit comes second: it ends the trigger without a word to the job.
        backup = None if limit is None else limit + timedelta(seconds=_TIMEOUT_GRACE)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=backup)

    def _finish(self, what: str, result: JobResult, line: Result | None, tail: Sequence[str]) -> Any:
        if self._killed and not result.ok:
            raise FluxJobCancelled(f"{what} {result.describe()}")
        raise_for(result, what, skip_on=self.skip_on_exit_code, tail=() if self.get_logs else tail)
        self.log.info("%s %s", what, result.describe())
        try:
            return self.xcom(line)
        except OutputError as err:
            raise AirflowException(f"{what} completed, but {err}") from None

    def xcom(self, line: Result | None) -> Any:
        """What the task gives, of the line that its job has left. Raises OutputError."""
        return xcom_of(line, self.result, self._limit())

    def _limit(self) -> int:
        return int(conf.getint("flux", "max_xcom_bytes", fallback=65536))

    def _marker(self) -> str:
        """What the line of the result begins with; empty where it is just the last one."""
        return ""

    def _cancel_by_key(self, context: Context) -> None:
        from airflow_provider_flux.names import deployment_id, run_of
        from executors import ExecutorsError, join_session, run_name

        ti = context["ti"]
        hook = FluxHook(self.flux_conn_id)
        minicluster = self._minicluster()
        name = run_name(run_of(deployment_id(), ti.dag_id, ti.run_id, minicluster.name))
        try:
            config = hook.run_config(minicluster.config, folder_of(self))
            session = join_session(name, config, environ=hook.environment(), announce=self.log.info)
        except ExecutorsError as err:
            self.log.info("no job to cancel: %s", err)  # with its instance, its jobs are gone
            return
        try:
            found = session.find([self._keys(context).now])
            active = [job["id"] for job in found if job["result"] is None]
            if active:
                self.log.info("cancelling job %s", ", ".join(active))
                session.cancel_and_wait(active, _REPLACE_LIMIT)
        finally:
            session.close(release=False)


def _put(pieces: queue.SimpleQueue[Any], stream: str, piece: bytes | BaseException | None) -> None:
    pieces.put((stream, piece))


def _of_use(job: Mapping[str, Any]) -> bool:
    return job["result"] is None or job["result"]["outcome"] == "COMPLETED"


def _argv(command: object, problems: list[str]) -> list[str]:
    if isinstance(command, str):
        if not command.strip():
            problems.append("command: is empty")
        return [*_SHELL, command]
    if not isinstance(command, Sequence) or not command:
        problems.append(f"command: {command!r} is neither a string nor a list of words")
        return ["false"]
    return [str(word) for word in command]


def _seconds(limit: object, problems: list[str]) -> float | None:
    if limit is None or limit == "":
        return None
    if isinstance(limit, timedelta):
        return limit.total_seconds()
    try:
        return float(limit)  # type: ignore[arg-type]  # what is no number is told
    except (TypeError, ValueError):
        problems.append(f"time_limit: {limit!r} is neither a number of seconds nor a timedelta")
        return None


def _codes(given: int | Collection[int] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, int) else tuple(given)
