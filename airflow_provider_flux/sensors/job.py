"""FluxJobSensor: waits for a job that another task has submitted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException, BaseSensorOperator, conf

from airflow_provider_flux.exceptions import FluxJobFailed, FluxRequestError, raise_for, translate_errors
from airflow_provider_flux.hooks.flux import FluxHook

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

_FIELDS = ("run_name", "options", "job_id", "flux_conn_id")


class FluxJobSensor(BaseSensorOperator):
    """Succeeds when a job has completed, and fails when it has failed.

    :param job: the XCom of a `FluxOperator` with ``wait=False``. (templated)
    :param deferrable: wait in the triggerer. Without, a worker waits; neither polls.

    The job goes on when the sensor times out or is killed: who submitted it decides about it.
    """

    template_fields: Sequence[str] = ("job",)

    def __init__(
        self,
        *,
        job: Mapping[str, Any] | Any,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.deferrable = deferrable

    def execute(self, context: Context) -> Any:
        job = self.job
        if not isinstance(job, Mapping) or set(job) != set(_FIELDS) or not isinstance(job["options"], Mapping):
            raise FluxRequestError(f"job: {job!r} is not what a FluxOperator with wait=False returns")
        deadline = time.time() + self._limit().total_seconds()
        if self.deferrable:
            from airflow_provider_flux.triggers.job import FluxJobTrigger

            attempt = context["ti"].try_number
            trigger = FluxJobTrigger(
                **self.job, attempt=attempt, get_logs=False, want_result=False, cancel_on_kill=False
            )
            self.defer(trigger=trigger, method_name="execute_complete", timeout=self._limit())
        hook = FluxHook(self.job["flux_conn_id"])
        with translate_errors():
            session = hook.join_session(self.job["run_name"], self.job["options"], self.log.info)
        with session:
            [handle] = session.attach([self.job["job_id"]])
            try:
                result = handle.result(max(0.0, deadline - time.time()))
            except TimeoutError:
                raise self._late() from None
        return self._finish(result)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        from executors import JobResult

        return self._finish(JobResult.from_wire(event["result"]))

    def _finish(self, result: Any) -> Any:
        what = f"job {self.job['job_id']}"
        try:
            raise_for(result, what)
        except FluxJobFailed as err:
            if self.soft_fail:
                raise AirflowSkipException(str(err)) from err
            raise
        self.log.info("%s %s", what, result.describe())

    def _limit(self) -> timedelta:
        """The shorter one of ``timeout`` and execution_timeout, which Airflow does not apply to deferred tasks."""
        timeout = timedelta(seconds=float(self.timeout))
        return timeout if self.execution_timeout is None else min(timeout, self.execution_timeout)

    def _late(self) -> Exception:
        text = f"job {self.job['job_id']} has not ended within {float(self.timeout):g} s"
        return AirflowSkipException(text) if self.soft_fail else AirflowSensorTimeout(text)
