"""The JSON Schema of config files, and the page that describes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from executors.config import KEYS, JobDefaults, RunSection, load_config
from executors.config_schema import config_schema, schema_text
from executors.errors import ConfigError
from executors.render import MiniCluster, render_direct
from executors.spec import parse_spec
from executors.validation import direct_problems
from tests.support.upstream import miniclusters

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = jsonschema.Draft202012Validator(config_schema())
HEAD = {"apiVersion": "flux-operator-executors/v1", "kind": "FluxRun"}


def examples() -> list[str]:
    """The indented YAML documents of the page."""
    text = (DOCS / "config.md").read_text()
    blocks = re.findall(r"(?m)((?:^    .*\n|^\n)+)", text)
    return [block for block in blocks if "apiVersion:" in block]


def is_taken(tmp_path: Path, document: Any) -> bool:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    try:
        load_config(path, environ={})
    except ConfigError:
        return False
    return True


def test_the_file_in_the_docs_is_what_is_made() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())
    cure = "run python -m executors.config_schema > docs/config.schema.json"
    assert (DOCS / "config.schema.json").read_text() == schema_text(), cure


def test_the_pages_examples_are_valid_and_direct_mode_can_honour_them(tmp_path: Path) -> None:
    assert len(examples()) == 2
    for text in examples():
        SCHEMA.validate(yaml.safe_load(text))
        (tmp_path / "config.yaml").write_text(text)
        config = load_config(tmp_path / "config.yaml", environ={})
        assert config.run.namespace == "science"
        assert config.minicluster is not None and direct_problems(config.minicluster) == []


def test_the_page_names_every_key_and_its_default() -> None:
    rows = re.findall(r"(?m)^\| `([\w.]+)` \| (.*?) ?\| ", (DOCS / "config.md").read_text())
    defaults = {"run": RunSection(), "jobDefaults": JobDefaults()}
    expected = [(key, getattr(defaults[key.split(".")[0]], KEYS[key].field)) for key in KEYS]
    shown = [
        (key, "" if value in (None, {}) else value if isinstance(value, str) else f"{value:g}")
        for key, value in expected
    ]
    assert rows[:-1] == shown
    assert rows[-1][0] == "minicluster"


@pytest.mark.parametrize(
    ("document", "valid"),
    [
        (HEAD, True),
        ({**HEAD, "run": {"provisioner": "operator", "ttl": 0.5}, "jobDefaults": {"env": {"A": "b"}}}, True),
        ({**HEAD, "minicluster": {"containers": [{}]}}, True),
        ({}, False),
        ({**HEAD, "kind": "Job"}, False),
        ({**HEAD, "run": {"provisioner": "cloud"}}, False),
        ({**HEAD, "run": {"ttl": -1}}, False),
        ({**HEAD, "run": {"brokers": 0}}, False),
        ({**HEAD, "run": {"namespace": ""}}, False),
        ({**HEAD, "runs": {}}, False),
        ({**HEAD, "minicluster": {"containers": [{"imgae": "x"}]}}, False),
        ({"apiVersion": "flux-framework.org/v1alpha2", "kind": "MiniCluster", "spec": {"containers": [{}]}}, True),
        ({"apiVersion": "flux-framework.org/v1alpha2", "kind": "MiniCluster", "spec": {}}, False),
        ({"apiVersion": "flux-framework.org/v1alpha2", "kind": "MiniCluster"}, False),
        ({"apiVersion": "flux-framework.org/v1", "kind": "MiniCluster", "spec": {"containers": [{}]}}, False),
    ],
)
def test_schema_and_program_agree(tmp_path: Path, document: Any, valid: bool) -> None:
    assert (SCHEMA.is_valid(document), is_taken(tmp_path, document)) == (valid, valid)


def test_every_example_of_upstreams_that_its_own_crd_takes_is_taken(tmp_path: Path) -> None:
    for name, document in miniclusters().items():
        unknown = "volumes" in document["spec"]
        assert SCHEMA.is_valid(document) is not unknown, name
        assert is_taken(tmp_path, document) is not unknown, name


def test_defaults_of_the_schema_are_what_a_run_has() -> None:
    def default(*names: str) -> Any:
        inner: Any = config_schema()["$defs"]["spec"]
        for name in names:
            inner = inner[name]
        return inner.get("default")

    spec = parse_spec({"containers": [{}]})
    [job] = [one for one in render_direct(MiniCluster("run", "ns", spec), None, "") if one["kind"] == "Job"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    text = json.dumps(render_direct(MiniCluster("run", "ns", spec), None, ""))
    flux = ("properties", "flux", "properties")
    assert container["image"] == default("properties", "containers", "items", "properties", "image")
    assert f"tbon.connect_timeout={default(*flux, 'connectTimeout')}" in text
    assert default(*flux, "logLevel") is None and "log-stderr-level" not in text
    assert job["spec"]["activeDeadlineSeconds"] == default("properties", "deadlineSeconds")
    assert job["spec"]["completions"] == default("properties", "size")


def test_the_schema_is_plain_json() -> None:
    assert json.loads(schema_text()) == config_schema()
