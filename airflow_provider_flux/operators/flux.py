"""FluxOperator: one task, one Flux job in the DAG run's instance."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    BaseOperator,
    conf,
)

from airflow_provider_flux import arguments, submission
from airflow_provider_flux.cluster_reference import DEFAULT_CONNECTION, MiniCluster, minicluster_of
from airflow_provider_flux.exceptions import (
    FluxJobCancelled,
    FluxJobLost,
    FluxRequestError,
    raise_for,
    timed_out,
    translate_errors,
)
from airflow_provider_flux.following import read_output
from airflow_provider_flux.hooks.flux import FluxHook, reconnect_options
from airflow_provider_flux.links import FluxJobLink, FluxMiniClusterLink, push_links
from airflow_provider_flux.masking import Masker
from airflow_provider_flux.names import JobKeys, job_keys
from airflow_provider_flux.operators.minicluster import dag_folder
from airflow_provider_flux.output import STREAMS, OutputError, OutputLog, Result, to_xcom
from airflow_provider_flux.request import job_request, secret_variables
from airflow_provider_flux.sealing import Kept, seal, unseal
from airflow_provider_flux.xcom import check_value

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from executors import JobHandle, JobRequest, JobResult, Session

#: Seconds that Airflow gives `on_kill` before it sends SIGKILL are five.
_KILL_LIMIT = 3.0
#: Seconds that the trigger has to cancel a job that is over its execution_timeout, before Airflow ends the trigger.
_TIMEOUT_GRACE = 60
_RESULTS = ("last_line", "json", "none")


class FluxOperator(BaseOperator):
    """Runs a command as a Flux job in the DAG run's own instance (on Kubernetes: its MiniCluster).

    The instance is made by the first task that needs it and shared by all tasks of the run; Flux queues the jobs, so
    no pool is needed.

    (Long because of its arguments, which Airflow wants as attributes; what happens with them is in `request`,
    `submission`, `following` and `xcom`.)

    :param command: for the shell (a string), or the program and its arguments (a list). (templated)
    :param nodes, ntasks, cores_per_task, gpus_per_task, exclusive: what the job asks Flux for. (templated)
    :param time_limit: of the job, in seconds or as a timedelta. Queueing does not count. (templated)
    :param env: variables that are added to the job's environment. (templated)
    :param secret_env: the same for secrets: masked in logs (see `masking`), in no jobspec, XCom or rendered template.
        Templates in its values are rendered when the task runs, for instance ``{{ conn.s3.password }}``.
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
    :param deferrable: wait in the triggerer, not in a worker, for a job that has not ended after ``[flux] defer_after``
        seconds (2).
    :param durable: a retry takes over the job of a try whose worker was lost. False: each try has a job of its own.
    :param get_logs: write the job's output into the task's log as it comes. False: only the last lines of a failure.
    :param wait: False ends the task once the job is submitted; its XCom is for `FluxJobSensor`.
    """

    template_fields: Sequence[str] = (
        "command", "nodes", "ntasks", "cores_per_task", "gpus_per_task", "time_limit", "env", "cwd", "config",
        "flux_conn_id", "flux_queue", "bank", "urgency",
    )  # fmt: skip
    template_fields_renderers = {"command": "bash", "env": "json"}
    # No files: a word of a command, or a path in env, that ends like one is no template.
    template_ext: Sequence[str] = ()
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
        skip_on_exit_code: int | str | Collection[int] | None = None,
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
        self.skip_on_exit_code = arguments.exit_codes(skip_on_exit_code)
        self.deferrable = deferrable
        self.durable = durable
        self.get_logs = get_logs
        self.wait = wait
        #: See `links`.
        self.flux_links: dict[str, str] = {}
        self._handle: JobHandle | None = None
        self._killed = False

    # -- Airflow's side

    def execute(self, context: Context) -> Any:
        ti = context["ti"]
        with translate_errors():
            request = self.job_request(context)
            minicluster = self._minicluster()
            hook = FluxHook(minicluster.flux_conn_id)
            session = hook.open_session(minicluster, ti.dag_id, ti.run_id, dag_folder(self), self.log.info)
        try:
            if not session.remote and request.cwd is None:
                # Not the worker's own, which may be another one at the next try.
                request = replace(request, cwd=tempfile.gettempdir())
            with translate_errors():
                handle = self._submit(session, request, self._keys(context))
            self.flux_links = push_links(
                ti, hook.settings(), name=session.run_name, instance=session.hello.instance, job=str(handle.id)
            )
            if self.wait and (not self.deferrable or self._ends_soon(handle)):
                masker = Masker(request.secret_env.values())
                output = OutputLog(self._limit(), self._marker(), masker=masker)
                cut = self._follow(session, handle, output)
                result = handle.result()
                tail = output.tail if self.get_logs or result.ok else self._last_lines(session, handle, masker)
                forget = partial(self._acknowledge, session, str(handle.id))
                return self._finish(context, str(handle.id), result, output.result, tail, cut, forget)
            sealed = self._sealed(session, handle, request, ti) if self.wait else ""
            job = {
                "run_name": session.run_name,
                "options": reconnect_options(hook.run_config(minicluster.config, dag_folder(self))),
                "flux_conn_id": self.flux_conn_id,
                "job_id": handle.id,
            }
        except BaseException:
            # Airflow's time-out among them; it calls `on_kill` only when the session is closed already.
            self._cancel_unfinished()
            raise
        finally:
            session.leave()
            self._handle = None
        if self.wait:
            limit = self.execution_timeout
            deadline = None if limit is None else time.time() + limit.total_seconds()
            self._defer({**job, "sealed": sealed, "deadline": deadline}, ti)
        return job

    def execute_complete(self, context: Context, event: dict[str, Any], job: Mapping[str, Any] | None = None) -> Any:
        """Go on after the trigger. ``event``: see `FluxJobTrigger`; ``job``: what this try waits for."""
        from executors import JobResult

        if job is not None and event["job_id"] != job["job_id"]:
            # Airflow knows triggers by numbers, which SQLite gives again; so a task that is cleared as it defers may be
            # told what the trigger of the try before saw.
            self.log.info("job %s belonged to an earlier try; waiting for %s", event["job_id"], job["job_id"])
            self._defer(job, context["ti"])
        self.flux_links = event["links"]
        job_id, result = event["job_id"], JobResult.from_wire(event["result"])
        if event["timed_out"] and not result.ok:
            raise timed_out(f"job {job_id}")
        line, tail, cut = event["result_line"], event["tail"], None
        found = None if line is None else Result(*line)
        if not event["read"] or not (self.get_logs or result.ok):
            found, tail, cut = self._read_rest(context, event, result)
        return self._finish(context, job_id, result, found, tail, cut, partial(self._forget, event))

    def _read_rest(
        self, context: Context, event: Mapping[str, Any], result: JobResult
    ) -> tuple[Result | None, Sequence[str], str | None]:
        """Log what the trigger has left of the output, and find the result in it; the last says what is missing."""
        from executors import ExecutorsError

        masker = Masker(secret_variables(self, context, []).values())
        output = OutputLog(self._limit(), self._marker(), event["place"], masker)
        try:
            with self._joined(event) as session:
                [handle] = session.attach([event["job_id"]])
                # What it was given then, where the templates give something else by now.
                known = session.jobs(ids=[event["job_id"]])
                kept = Kept.parse(known[0].bookmark) if known else None
                given = unseal(event.get("sealed", ""), kept.key if kept is not None else "") or []
                masker = Masker([*masker.secrets, *given])
                if not (self.get_logs or result.ok):
                    return None, self._last_lines(session, handle, masker) or event["tail"], None
                output = OutputLog(self._limit(), self._marker(), event["place"], masker)
                cut = self._follow(session, handle, output)
        except ExecutorsError as err:
            cut = str(err)
            self._warn_of_cut(cut)
        return output.result, output.tail or event["tail"], cut

    def _last_lines(self, session: Session, handle: JobHandle, masker: Masker) -> Sequence[str]:
        """Of a job that has failed, and whose output no log shows."""
        from executors import ExecutorsError

        output = OutputLog(self._limit(), self._marker(), masker=masker)
        try:
            read_output(session, str(handle.id), output, STREAMS, lambda _lines: None)
        except ExecutorsError as err:  # lost with the job: that is what is to be told
            self.log.info("its last lines could not be read: %s", err)
        return output.tail

    def _forget(self, event: Mapping[str, Any]) -> None:
        from executors import ExecutorsError

        try:
            with self._joined(event) as session:
                self._acknowledge(session, event["job_id"])
        except ExecutorsError as err:
            self.log.info("the instance is gone, and with it the job: %s", err)

    def _acknowledge(self, session: Session, job_id: str) -> None:
        """Make the job's key free: a retry is to run the command again."""
        from executors import ExecutorsError

        try:
            session.acknowledge_ids([job_id])
        except ExecutorsError as err:
            self.log.info("job %s is not known any more: %s", job_id, err)

    @contextlib.contextmanager
    def _joined(self, job: Mapping[str, Any]) -> Iterator[Session]:
        """A session for a job that was submitted before. Raises ExecutorsError."""
        hook = FluxHook(job["flux_conn_id"])
        with hook.join_session(job["run_name"], job["options"], self.log.debug) as session:
            yield session

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
        done = threading.Event()

        def cancel() -> None:
            handle.cancel("the Airflow task was killed")
            done.set()
            self.log.info("job %s is cancelled: the task was killed", handle.id)

        # In a thread: the code that the signal has interrupted may hold the locks that this needs, the log's among
        # them, which is full of the job's output.
        threading.Thread(target=cancel, daemon=True).start()
        done.wait(_KILL_LIMIT)

    def dry_run(self) -> None:
        """Print the job that would be submitted, and submit nothing."""
        import json

        from executors.job import Defaults, Environments, prepare_submission

        super().dry_run()
        submission = prepare_submission(self.job_request(None), Defaults(), Environments(None), "/")
        self.log.info("jobspec:\n%s", json.dumps(submission.jobspec, indent=2))

    # -- the job

    def job_request(self, context: Context | None) -> JobRequest:
        """The job that this task asks for. Raises RequestError with everything that is wrong, field by field."""
        return job_request(self, context)

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
        def begun(handle: JobHandle) -> None:
            self._handle = handle

        handle = submission.submit(session, request, keys, self.log, begun)
        if handle.id is None:
            raise_for(handle.result(), "the job")
        if self._killed:
            handle.cancel("the Airflow task was killed")
        return handle

    def _ends_soon(self, handle: JobHandle) -> bool:
        """Whether a job has ended before it is worth the while to defer: Airflow starts a second process for that."""
        try:
            handle.result(conf.getfloat("flux", "defer_after", fallback=2.0))
        except TimeoutError:
            return False
        return True

    def _follow(self, session: Session, handle: JobHandle, output: OutputLog) -> str | None:
        """Log the job's output from where ``output`` stands until its end. Returns why stdout, which has the result in
        it, is not whole; None: it is.
        """
        streams = STREAMS if self.get_logs else STREAMS[:1] if self.result != "none" else ()
        cuts = read_output(session, str(handle.id), output, streams, self._log_lines)
        for stream, why in cuts.items():
            self._warn_of_cut(f"{stream}: {why}")
        handle.result()
        return f"stdout: {cuts['stdout']}" if "stdout" in cuts else None

    def _warn_of_cut(self, cut: str) -> None:
        self.log.error("the output above is incomplete; the rest could not be read: %s", cut)

    def _cancel_unfinished(self) -> None:
        handle = self._handle
        if handle is None or handle.done():
            return
        handle.cancel("its Airflow task has ended before it")
        with contextlib.suppress(TimeoutError):
            handle.result(_KILL_LIMIT)

    def _log_lines(self, lines: Sequence[str]) -> None:
        if self.get_logs:
            for line in lines:
                self.log.info("%s", line)

    def _sealed(self, session: Session, handle: JobHandle, request: JobRequest, ti: Any) -> str:
        """The secrets for the trigger, who comes by their key with the job."""
        sealed, key = seal(list(request.secret_env.values()))
        if sealed:
            session.save_bookmark(str(handle.id), str(Kept(ti.try_number, key=key)))
        return sealed

    def _defer(self, job: Mapping[str, Any], ti: Any) -> None:
        """``job``: its fields in the trigger's arguments; no secret is among them, since Airflow stores them."""
        from airflow_provider_flux.triggers.job import FluxJobTrigger

        trigger = FluxJobTrigger(
            **job,
            attempt=ti.try_number,
            get_logs=self.get_logs,
            limit=self._limit(),
            marker=self._marker(),
            want_result=self.result != "none",
            links=self.flux_links,
        )
        # Airflow's own limit comes second: it ends the trigger without a word to the job.
        backup = None
        if job["deadline"] is not None:
            backup = timedelta(seconds=max(0.0, job["deadline"] - time.time()) + _TIMEOUT_GRACE)
        self.defer(trigger=trigger, method_name="execute_complete", kwargs={"job": dict(job)}, timeout=backup)

    def _finish(
        self,
        context: Context,
        job_id: str,
        result: JobResult,
        line: Result | None,
        tail: Sequence[str],
        cut: str | None,
        forget: Callable[[], object],
    ) -> Any:
        """What the task returns, or the exception that tells how its job ended.

        ``cut``: why stdout is not whole, where it is not. ``forget`` makes the job's key free.
        """
        what = f"job {job_id}"
        if self._killed and not result.ok:
            raise FluxJobCancelled(f"{what} {result.describe()}")
        raise_for(result, what, skip_on=self.skip_on_exit_code, tail=() if self.get_logs else tail)
        self.log.info("%s %s", what, result.describe())
        if cut is not None and self.result != "none":
            forget()
            raise FluxJobLost(
                f"{what} completed, but its output could not be read whole ({cut}), so the task's result is missing; "
                "this is a loss of infrastructure, not a failure of the command"
            )
        try:
            value = self.xcom(line)
            check_value(self, value, context)
            return value
        except OutputError as err:
            forget()
            raise AirflowException(f"{what} completed, but {err}") from None

    def xcom(self, line: Result | None) -> Any:
        """What the task returns, from the line that its job has left. Raises OutputError."""
        return to_xcom(line, self.result, self._limit())

    def _limit(self) -> int:
        return int(conf.getint("flux", "max_xcom_bytes", fallback=65536))

    def _marker(self) -> str:
        """What the line of the result begins with; empty where it is just the last one."""
        return ""

    def _cancel_by_key(self, context: Context) -> None:
        from airflow_provider_flux.names import deployment_id, make_run_id
        from executors import ExecutorsError, join_session, run_name

        ti = context["ti"]
        minicluster = self._minicluster()
        hook = FluxHook(minicluster.flux_conn_id)
        try:
            name = run_name(make_run_id(deployment_id(), ti.dag_id, ti.run_id, minicluster.name))
            config = hook.run_config(minicluster.config, dag_folder(self))
            session = join_session(name, config, environ=hook.environment(), report_progress=self.log.info)
        except ExecutorsError as err:
            self.log.info("no job to cancel: %s", err)  # with its instance, its jobs are gone
            return
        with session:
            submission.cancel(session, self._keys(context).now, self.log)
