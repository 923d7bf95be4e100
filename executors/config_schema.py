"""The JSON Schema of config files, made from the same descriptions as their validation.

python -m executors.config_schema > docs/config.schema.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from executors.config import API_VERSION, KEYS, JobDefaults, RunSection
from executors.schema import MINICLUSTER_API_VERSION, json_schema
from executors.spec import SPEC


def config_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a FluxRun, and of the bare MiniCluster that is accepted in its place."""
    sections: dict[str, dict[str, Any]] = {}
    defaults = {"run": RunSection(), "jobDefaults": JobDefaults()}
    for key, (field, _, kind) in KEYS.items():
        section, name = key.split(".")
        default = getattr(defaults[section], field)
        sections.setdefault(section, {})[name] = json_schema(replace(kind, default=default or None))
    spec = {"$ref": "#/$defs/spec"}
    run = {
        name: {"type": "object", "additionalProperties": False, "properties": keys} for name, keys in sections.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Pipeline config of flux-operator-executors, or a MiniCluster",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "if": {"properties": {"kind": {"const": "MiniCluster"}}},
        "then": {
            "required": ["spec"],
            "properties": {
                "apiVersion": {"const": MINICLUSTER_API_VERSION},
                "metadata": {"type": "object"},
                "spec": spec,
            },
        },
        "else": {
            "additionalProperties": False,
            "properties": {
                "apiVersion": {"const": API_VERSION},
                "kind": {"const": "FluxRun"},
                **run,
                "minicluster": spec,
            },
        },
        "$defs": {"spec": json_schema(SPEC)},
    }


def schema_text() -> str:
    """What is in docs/config.schema.json."""
    return json.dumps(config_schema(), indent=1) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
