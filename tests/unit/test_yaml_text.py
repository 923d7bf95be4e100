"""Configs as people write them: what YAML has and they use works, the rest is refused by line, name and cure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from executors import ConfigError, load_config
from executors.config import config_of_text
from executors.kube.kubeconfig import select
from executors.yaml_text import MAX_SIZE, YamlTextError, read_mapping

HEAD = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\n"


def test_merge_keys_anchors_and_aliases_work_and_what_is_written_out_wins() -> None:
    found = read_mapping("""
base: &base {cpu: "1", memory: 1Gi}
more: &more {<<: *base, gpu: 2}
one: {memory: 2Gi, <<: *base}
several: {<<: [{cpu: mine}, *more]}
list: &list [1, 2]
again: *list
""")
    assert found["one"] == {"cpu": "1", "memory": "2Gi"}
    assert found["more"] == {"cpu": "1", "memory": "1Gi", "gpu": 2}
    assert found["several"] == {"cpu": "mine", "memory": "1Gi", "gpu": 2}
    assert found["again"] == [1, 2]


def test_dates_and_times_are_texts() -> None:
    found = read_mapping("a: 2026-01-01\nb: 2026-01-01T10:00:00Z\nc: 12:30\nd: 1:30.5\ne: 0x10\nf: 1_000\n")
    assert found == {"a": "2026-01-01", "b": "2026-01-01T10:00:00Z", "c": "12:30", "d": "1:30.5", "e": 16, "f": 1000}


def test_a_byte_order_mark_and_line_ends_of_other_systems_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + "run: {brokers: 2}\n").replace("\n", "\r\n").encode())
    assert load_config(path, environ={}).run.brokers == 2
    assert config_of_text("\ufeffa: 1\n") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: {x: 1, x: 2}\n", "in line 2: 'x' is given twice, in line 2 too"),
        ("a: 1\nb: 2\na: 3\n", "in line 3: 'a' is given twice, in line 1 too"),
        ("a: {<<: {b: 1}, <<: {c: 2}}\n", "'<<' is given twice"),
        ("a: {<<: 3}\n", "<<: takes a mapping, or a list of mappings"),
        ("a: 1\n---\nb: 1\n", "a second document begins"),
        ("a:\n  1: x\n", "in line 2: the key '1' is not a string; put it in quotes"),
        ("on: x\n", "the key 'on' is not a string; put it in quotes"),
        ("? [a]\n: x\n", "the key a list or a mapping is not a string"),
        ("a:\n\tb: 1\n", "in line 2: found character '\\t' that cannot start any token; indent with spaces"),
        ("a: !!python/name:os.system x\n", "the tag !!python/name:os.system is not known here"),
        ("a: !mine {b: 1}\n", "the tag !mine is not known here"),
        ("a: !!set {b}\n", "the tag !!set is not known here"),
        ("a: !!int x\n", "'x' is no int"),
        ("a: !!binary eA==\n", "the tag !!binary is not known here"),
        ('a: !!int ""\n', "'' is no int"),
        ('a: !!float ""\n', "'' is no float"),
        ("a: !!int '-'\n", "'-' is no int"),
        ("a: *b\n", "found undefined alias; put strings that begin with *, & or ! in quotes"),
        ("a: &a [*a]\n", "an alias (*name) is inside the value that it names"),
        ("a: &a {<<: *a}\n", "an alias (*name) is inside the value that it names"),
        ("a: " + "9" * 5000 + "\n", "is no int"),
        ("a: " + "[" * 60 + "]" * 60, "it is nested more than 50 deep"),
        ("a: " + "[" * 600 + "]" * 600, "is nested more than 50 deep"),
        ("a: \0", "is not valid YAML"),
        ("a: " + "x" * MAX_SIZE, "is larger than"),
        ("? " + "k" * 1100 + "\n: 1\n", "a key is longer than 1000 characters"),
        ("", "holds no mapping"),
        ("- a", "holds no mapping"),
    ],
)
def test_what_is_refused_is_told_once_and_in_a_line(text: str, words: str) -> None:
    with pytest.raises(YamlTextError) as told:
        read_mapping(text)
    assert words in str(told.value)
    assert len(str(told.value)) < 700 and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "value", ["*hunter2", "!hunter2", "!hunter2 text", "!hun!ter2", "!<hunter2> x", "&hunter2 a\nb: &hunter2 c"]
)
def test_what_may_be_a_secret_without_quotes_is_not_shown(value: str, tmp_path: Path) -> None:
    if not value.startswith("&"):  # two anchors of one name are no error there
        with pytest.raises(YamlTextError) as refused:
            read_mapping(f"a: {value}\n")
        assert "ter2" not in str(refused.value)
    path = tmp_path / "kubeconfig"
    path.write_text(f"users:\n- name: me\n  user:\n    password: {value}\n".replace("\nb:", "\n    token:"))
    with pytest.raises(ConfigError) as told:
        select([path], None)
    assert "ter2" not in str(told.value)


def test_bytes_that_are_no_text_are_told() -> None:
    with pytest.raises(YamlTextError, match=r"is not UTF-8 text: .* at byte 3"):
        read_mapping(b"a: \xff\n")


def test_a_message_shows_the_beginning_of_a_large_value_only(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(HEAD + f"run: {{provisioner: {'x' * 100_000}, brokers: [{', '.join(['lol'] * 10_000)}]}}\n")
    with pytest.raises(ConfigError) as told:
        load_config(path, environ={})
    assert len(told.value.problems) == 2 and len(str(told.value)) < 1500


_KEYS = st.text(max_size=5)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=4), st.booleans())
def test_what_was_written_is_read(value: dict[str, object], flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    # As PyYAML reads it, which takes some line breaks of Unicode for its own.
    assert read_mapping(text) == yaml.safe_load(text)
