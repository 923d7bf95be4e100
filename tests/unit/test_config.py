"""The pipeline config: every problem at once, and where each value came from."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executors import ConfigError, RunConfig, load_config
from executors.config import JobDefaults, RunSection, describe, variable_name

HEAD = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\n"


def load(tmp_path: Path, text: str, **keywords: object) -> RunConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(path, environ=keywords.pop("environ", {}), **keywords)  # type: ignore[arg-type]


def problems(tmp_path: Path, text: str, **keywords: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **keywords)
    assert all(problem in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def test_without_anything_the_defaults_hold() -> None:
    config = load_config(environ={})
    assert config.run == RunSection() and config.job_defaults == JobDefaults()
    assert (config.run.idle_timeout, config.run.orphan_timeout) == (300.0, 3600.0)


def test_a_file_is_read(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        HEAD + "run: {provisioner: local, brokers: 2}\njobDefaults: {env: {A: b}}\n"
        "minicluster: {size: 4, containers: [{image: i}]}\n",
    )
    assert (config.run.provisioner, config.run.brokers) == ("local", 2)
    assert config.job_defaults.env == {"A": "b"}
    assert config.minicluster is not None
    assert config.minicluster.document == {"size": 4, "containers": [{"image": "i"}]}


def test_a_bare_minicluster_is_accepted(tmp_path: Path) -> None:
    text = (
        "apiVersion: flux-framework.org/v1alpha2\nkind: MiniCluster\nmetadata: {name: x}\n"
        "spec: {size: 2, containers: [{}]}\n"
    )
    found = load(tmp_path, text).minicluster
    assert found is not None and found.document == {"size": 2, "containers": [{}]}


def test_a_bare_minicluster_says_where_it_wants_to_be_unless_somebody_else_does(tmp_path: Path) -> None:
    text = (
        "apiVersion: flux-framework.org/v1alpha2\nkind: MiniCluster\nmetadata: {name: x, namespace: science}\n"
        "spec: {containers: [{}]}\n"
    )
    assert load(tmp_path, text).run.namespace == "science"
    assert load(tmp_path, text, environ={"FLUX_OPERATOR_NAMESPACE": "mine"}).run.namespace == "mine"
    assert any("run.namespace: 3" in one for one in problems(tmp_path, text.replace("science", "3")))


def test_option_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = HEAD + "run: {idleTimeout: 1, orphanTimeout: 1, ttl: 1}\n"
    environ = {"FLUX_OPERATOR_IDLE_TIMEOUT": "2", "FLUX_OPERATOR_ORPHAN_TIMEOUT": "2"}
    config = load(tmp_path, text, environ=environ, options={"run.idleTimeout": 3.0, "run.brokers": None})
    assert (config.run.idle_timeout, config.run.orphan_timeout, config.run.ttl) == (3.0, 2.0, 1.0)
    lines = describe(config)
    assert "run.idleTimeout = 3.0 (option)" in lines
    assert "run.orphanTimeout = 2.0 (environment FLUX_OPERATOR_ORPHAN_TIMEOUT)" in lines
    assert f"run.ttl = 1.0 (file {tmp_path / 'run.yaml'})" in lines
    assert "run.brokers = 1 (default)" in lines


def test_values_of_env_are_not_shown(tmp_path: Path) -> None:
    config = load(tmp_path, HEAD + "jobDefaults: {env: {TOKEN: sesame}}\n")
    assert "sesame" not in "\n".join(describe(config))


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    text = (
        HEAD
        + "run: {provisioner: cloud, idleTimeout: 300s, idelTimeout: 3}\njobDefaults: {coresPerTask: 0}\nextra: 1\n"
    )
    found = problems(tmp_path, text)
    assert len(found) == 5
    assert any(
        "run.provisioner: 'cloud'" in one and "must be local, attach, direct or operator" in one for one in found
    )
    assert any("run.idleTimeout: '300s'" in one and "seconds" in one for one in found)
    assert any("did you mean run.idleTimeout?" in one for one in found)
    assert any("jobDefaults.coresPerTask: 0" in one for one in found)
    assert any(one.startswith("extra:") for one in found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no mapping"),
        ("- a\n", "holds no mapping"),
        ("kind: [", "is not valid YAML in line"),
        (HEAD + "run: {ttl: 1, ttl: 2}\n", "'ttl' is given twice"),
        (HEAD + "run: 3\n", "run: 3 must be a mapping"),
        (HEAD + "run: {ttl: .nan}\n", "run.ttl"),
        (HEAD + "run: {ttl: -1}\n", "must not be negative"),
        (HEAD + "run: {brokers: true}\n", "run.brokers: True"),
        (HEAD + "minicluster: {size: 2}\n", "minicluster.containers"),
        (HEAD + "minicluster: {containers: [{imgae: x}]}\n", "image"),
        (HEAD + "jobDefaults: {env: {A: 1}}\n", "put it in quotes"),
        (HEAD + "minicluster: 3\n", "minicluster: 3"),
        ("apiVersion: v1\nkind: Pod\n", "kind: 'Pod' must be FluxRun"),
        ("kind: MiniCluster\napiVersion: flux-framework.org/v1alpha2\n", "spec: is missing; it must be a mapping"),
    ],
)
def test_a_problem_names_field_value_and_cure(tmp_path: Path, text: str, words: str) -> None:
    assert any(words in problem for problem in problems(tmp_path, text))


def test_another_default_replaces_no_value_that_was_chosen() -> None:
    as_it_is, chosen = load_config(environ={}), load_config(environ={"FLUX_OPERATOR_ORPHAN_TIMEOUT": "3600"})
    assert as_it_is.with_default("run.orphanTimeout", 60.0).run.orphan_timeout == 60
    assert chosen.with_default("run.orphanTimeout", 60.0) is chosen and chosen.run.orphan_timeout == 3600


def test_every_variable_that_is_wrong_is_named_and_no_value_is_shown(tmp_path: Path) -> None:
    text = HEAD + "jobDefaults: {env: {N: 3141, 'a=b': s3cret, '': x, OK: s3cret, 'A B': x}}\n"
    found = problems(tmp_path, text)
    assert [problem.partition(" (")[0] for problem in found] == [
        "jobDefaults.env.N: the value is of the type int; it must be a string: put it in quotes",
        "jobDefaults.env: 'a=b' cannot be the name of an environment variable",
        "jobDefaults.env: '' cannot be the name of an environment variable",
    ]
    assert "s3cret" not in str(found) and "3141" not in str(found)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_config(tmp_path / "nowhere.yaml", environ={})


@pytest.mark.parametrize(
    "name, said",
    [
        ("IDLE_TIMOUT", "is not known; did you mean FLUX_OPERATOR_IDLE_TIMEOUT?"),
        ("PROVISONER", "is not known; did you mean FLUX_OPERATOR_PROVISIONER?"),
        ("BROKER", "is not known; did you mean FLUX_OPERATOR_BROKERS?"),
        ("RUNTIME_DIRS", "is not known; did you mean FLUX_OPERATOR_RUNTIME_DIR?"),
        ("POD_PATCH", "has no effect; run.podPatch can be given in a config file only"),
        ("ENV", "has no effect; jobDefaults.env can be given in a config file only"),
    ],
)
def test_a_variable_that_means_to_be_a_keys_is_told(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(environ={f"FLUX_OPERATOR_{name}": "secret"})
    assert [f"FLUX_OPERATOR_{name}: {said}"] == list(caught.value.problems)


#: Kubernetes' for Services called flux-operator and flux-operator-metrics, ours for jobs, and what a site may have.
_OTHERS = (
    "SERVICE_HOST SERVICE_PORT SERVICE_PORT_HTTPS PORT PORT_8443_TCP PORT_8443_TCP_PROTO PORT_8443_TCP_ADDR "
    "METRICS_SERVICE_HOST METRICS_PORT_8443_TCP RUNTIME_DIR JOB_CORES JOB_OF VERSION IMAGE TAG HOME CHART CONFIG"
)


@pytest.mark.parametrize("name", _OTHERS.split())
def test_other_variables_of_the_prefix_are_left_alone(name: str) -> None:
    load_config(environ={f"FLUX_OPERATOR_{name}": "something"})


def test_the_environment_is_checked_like_a_file() -> None:
    with pytest.raises(ConfigError, match=r"run\.brokers: 'many' \(environment FLUX_OPERATOR_BROKERS\)"):
        load_config(environ={"FLUX_OPERATOR_BROKERS": "many"})


def test_names_of_variables_follow_from_keys() -> None:
    assert variable_name("jobDefaults.gpusPerTask") == "FLUX_OPERATOR_GPUS_PER_TASK"


YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["apiVersion", "kind", "run", "jobDefaults", "minicluster", "env", "queue", "ttl"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(YAML)
def test_nothing_but_a_config_error_comes_of_any_file(tmp_path: Path, value: object) -> None:
    for text in (HEAD + yaml.safe_dump({"run": value, "jobDefaults": value}), yaml.safe_dump(value)):
        with contextlib.suppress(ConfigError):
            load(tmp_path, text)
