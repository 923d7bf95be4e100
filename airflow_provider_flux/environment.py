"""What a job inherits of a worker's environment. Pure, but for asking Airflow which names are secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

#: Airflow's own settings (its database and its keys among them), connections and variables are no business of a job.
_OWN = ("AIRFLOW_", "_AIRFLOW_", "FLUX_OPERATOR_")
#: What Airflow does not take for a secret, and often is one.
_NAME = re.compile(r"pass|_pwd|secret|token|api_?key|access_?key|private|_key$|credential|webhook|dsn", re.IGNORECASE)
#: A URL with a password.
_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def inheritable(environ: Mapping[str, str], is_secret: Callable[[str], bool] | None = None) -> dict[str, str]:
    """An environment without what is Airflow's and without what looks like a secret: jobspecs are stored by Flux.

    Where this machine's instances are is kept: workers find, and make, them where everybody else looks for them.
    """
    from executors.names import PLACE_VARIABLE  # else each parse of a DAG would load the core

    secret = _airflows_opinion if is_secret is None else is_secret
    return {
        name: value
        for name, value in environ.items()
        if name == PLACE_VARIABLE
        or not (name.startswith(_OWN) or _NAME.search(name) or _VALUE.search(value) or secret(name))
    }


def _airflows_opinion(name: str) -> bool:
    """Whether Airflow would mask a field of this name (``[core] sensitive_var_conn_names`` included)."""
    from airflow.providers.common.compat.sdk import redact

    probe = "a value that is no secret itself"
    return bool(redact(probe, name) != probe)
