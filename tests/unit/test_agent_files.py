"""Fields of requests, and the files that requests name."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from executors.agent.engine import EngineError
from executors.agent.protocol import fields
from executors.agent.protocol.files import Files


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ({}, "ids: must be a list of strings"),
        ({"ids": "f1"}, "ids: must be a list of strings"),
        ({"ids": ["f1", 2]}, "ids: must be a list of strings"),
    ],
)
def test_a_list_that_is_none_is_named(request_: dict[str, Any], problem: str) -> None:
    with pytest.raises(EngineError, match=problem) as refusal:
        fields.strings(request_, "ids")
    assert refusal.value.code == "bad-request"


@pytest.mark.parametrize("value", [None, "", 7, "a\0b", ["a"]])
def test_a_string_says_something_and_has_no_null_byte(value: object) -> None:
    with pytest.raises(EngineError, match=r"^path: must be a string"):
        fields.string({"path": value}, "path")


@pytest.mark.parametrize("value", [0, 65, True, "9", 1.5, None])
def test_an_integer_is_one_and_in_its_range(value: object) -> None:
    with pytest.raises(EngineError, match=r"^signal: .* is not an integer from 1 to 64"):
        fields.integer({"signal": value}, "signal", 1, 64)
    assert fields.integer({"signal": 15}, "signal", 1, 64) == 15
    assert fields.integer({}, "offset", default=3) == 3


def test_data_is_base64_and_may_be_empty() -> None:
    assert fields.data({"data": ""}, "data") == b"" and fields.data({"data": "AAE="}, "data") == b"\0\1"
    with pytest.raises(EngineError, match=r"^data: is not base64"):
        fields.data({"data": "?"}, "data")


def test_a_file_goes_and_comes_in_pieces(tmp_path: Path) -> None:
    files = Files(str(tmp_path / "files"))
    text = base64.b64encode(b"abc").decode()
    assert files.put({"path": "sub/one", "data": text, "mode": 0o640})["size"] == 3
    assert files.put({"path": "sub/one", "data": text, "offset": 3})["size"] == 6
    assert (tmp_path / "files" / "sub" / "one").read_bytes() == b"abcabc"
    piece = files.get({"path": "sub/one", "offset": 4})
    assert base64.b64decode(piece["data"]) == b"bc" and piece["eof"] and piece["size"] == 6


def test_a_relative_path_stays_in_the_agents_directory(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="leads out of the agent's directory"):
        Files(str(tmp_path / "files")).get({"path": "../secret"})


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(EngineError, match="is not a regular file"):
        Files(str(tmp_path)).get({"path": str(tmp_path / "fifo")})


def test_paths_are_described_in_order(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    about = Files(str(tmp_path)).describe(
        {"paths": [str(tmp_path), str(tmp_path / "file"), "/dev/null", "/nowhere/at all", "a\0b"]}
    )
    assert about["kinds"] == ["directory", "file", "other", None, None]
    assert about["writable"] == [True, None, None, None, None]
    assert about["owners"][1] == [os.getuid(), os.stat(tmp_path / "file").st_gid, 0o600]
    assert about["user"] == [os.getuid(), os.getgid()]
