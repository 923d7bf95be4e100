"""What Airflow is told of this provider (airflow/provider_info.schema.json)."""

from __future__ import annotations

from typing import Any

_NAME = "Flux"
_PACKAGE = "airflow_provider_flux"


def get_provider_info() -> dict[str, Any]:
    """The entry point ``apache_airflow_provider``. Read by every Airflow command: it imports as little as can be."""
    from airflow_provider_flux.fields import FIELDS

    return {
        "package-name": "flux-operator-executors",
        "name": _NAME,
        "description": "Tasks of a DAG as `Flux <https://flux-framework.org>`__ jobs, in one MiniCluster per DAG run.",
        "integrations": [
            {"integration-name": _NAME, "external-doc-url": "https://flux-framework.org", "tags": ["service"]}
        ],
        "operators": [
            {
                "integration-name": _NAME,
                "python-modules": [f"{_PACKAGE}.operators.flux", f"{_PACKAGE}.operators.minicluster"],
            }
        ],
        "sensors": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.sensors.job"]}],
        "hooks": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.hooks.flux"]}],
        "triggers": [{"integration-name": _NAME, "python-modules": [f"{_PACKAGE}.triggers.job"]}],
        "connection-types": [
            {
                "connection-type": "flux",
                "hook-class-name": f"{_PACKAGE}.hooks.flux.FluxHook",
                "hook-name": _NAME,
                "ui-field-behaviour": {
                    "hidden-fields": ["host", "schema", "port", "login", "password", "extra"],
                    "relabeling": {},
                    "placeholders": {},
                },
                "conn-fields": {
                    name: {
                        "label": label,
                        "description": text,
                        "schema": {
                            "type": ["string", "null"],
                            **({"enum": ["direct", "operator", "local", "attach"]} if name == "provisioner" else {}),
                        },
                    }
                    for name, (label, text) in FIELDS.items()
                },
            }
        ],
        "task-decorators": [
            {"name": "flux", "class-name": f"{_PACKAGE}.decorators.flux.flux_task"},
            {"name": "flux_python", "class-name": f"{_PACKAGE}.decorators.flux_python.flux_python_task"},
        ],
        "extra-links": [f"{_PACKAGE}.links.FluxJobLink", f"{_PACKAGE}.links.FluxMiniClusterLink"],
        "cli": [f"{_PACKAGE}.cli.commands.get_commands"],
        "config": {
            "flux": {
                "description": "Tasks as Flux jobs.",
                "options": {
                    "deployment_id": {
                        "description": "Distinguishes the MiniClusters of this Airflow from those of others in the "
                        "same namespace. Must be the same in all components. Default: a hash of Airflow's home and "
                        "addresses.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "prod",
                        "default": "",
                    },
                    "max_xcom_bytes": {
                        "description": "The longest line of output that becomes an XCom, in bytes.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "65536",
                    },
                    "defer_after": {
                        "description": "Seconds for which a deferrable task waits in its worker: a job that ends so "
                        "soon needs no second process of Airflow, and the task ends at once.",
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": None,
                        "default": "2.0",
                    },
                    "listener": {
                        "description": "Let the scheduler end the MiniCluster of a DAG run when the run has ended. The "
                        "scheduler then needs permission to do so. Otherwise, a MiniCluster that no teardown task has "
                        "deleted ends by its idle time-out.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                },
            }
        },
    }
