"""Exec channels: whatever the pieces that messages come in, the bytes of each channel arrive whole and apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.kube.exec_frames import (
    CLOSE,
    STATUS,
    STDERR,
    STDIN,
    STDOUT,
    Channels,
    close_stdin_message,
    resize_message,
    stdin_message,
)

MESSAGE = st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40))


@given(st.lists(MESSAGE, max_size=10), st.integers(1, 7))
def test_channels_do_not_depend_on_the_pieces_that_messages_come_in(
    messages: list[tuple[int, bytes]], cut: int
) -> None:
    channels = Channels()
    out = b""
    for channel, data in messages:
        whole = bytes([channel]) + data
        pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
        for at, piece in enumerate(pieces):
            out += channels.feed(piece, final=at == len(pieces) - 1)
    assert out == b"".join(data for channel, data in messages if channel == STDOUT)
    assert bytes(channels.stderr) == b"".join(data for channel, data in messages if channel == STDERR)
    assert not channels.ended


def test_an_empty_message_belongs_to_no_channel() -> None:
    channels = Channels()
    assert channels.feed(b"", final=True) == b""
    assert channels.feed(bytes([STDOUT]) + b"x", final=True) == b"x"


def test_success_ends_without_a_reason() -> None:
    channels = Channels()
    channels.feed(bytes([STATUS]) + json.dumps({"status": "Success"}).encode(), final=True)
    assert channels.ended and channels.failure() is None


def test_failure_is_told_with_what_the_program_said() -> None:
    channels = Channels()
    channels.feed(bytes([STDERR]) + b"no such socket\n", final=True)
    status = {"status": "Failure", "message": "command terminated with exit code 1"}
    channels.feed(bytes([STATUS]) + json.dumps(status).encode(), final=True)
    assert channels.failure() == "command terminated with exit code 1: no such socket"


def test_a_status_that_is_no_json_is_told_as_it_is() -> None:
    channels = Channels()
    channels.feed(bytes([STATUS]) + b"gone", final=True)
    assert channels.failure() == "gone"


def test_little_of_a_long_stderr_is_kept_and_its_end() -> None:
    channels = Channels()
    for _ in range(100):
        channels.feed(bytes([STDERR]) + b"x" * 1000, final=True)
    channels.feed(bytes([STDERR]) + b"last words", final=True)
    assert channels.stderr.endswith(b"last words") and len(channels.stderr) <= 4096


def test_input_goes_to_channel_0_and_its_end_is_said_by_channel_255() -> None:
    assert stdin_message(b"data") == b"\0data"
    assert close_stdin_message() == bytes([CLOSE, STDIN])


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"status": "Success"}, 0),
        ({"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}, 7),
        ({"status": "Failure", "message": "no such container"}, None),
        ({}, None),
    ],
)
def test_the_status_has_the_programs_exit_code(status: dict[str, object], code: int | None) -> None:
    channels = Channels()
    channels.feed(bytes((STATUS,)) + json.dumps(status).encode(), final=True)
    assert channels.exit_code() == code


def test_what_comes_on_stderr_is_passed_on_and_kept() -> None:
    told: list[bytes] = []
    channels = Channels(told.append)
    assert channels.feed(b"\2wro", final=False) == b"" == channels.feed(b"ng", final=True)
    assert told == [b"wro", b"ng"] and channels.stderr == b"wrong"


def test_the_size_of_a_terminal_is_a_message() -> None:
    assert json.loads(resize_message(80, 24)[1:]) == {"Width": 80, "Height": 24}
    assert resize_message(80, 24)[0] == 4
