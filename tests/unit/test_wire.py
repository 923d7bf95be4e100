"""Messages and lines, whatever the pieces they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.agent import wire

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.dictionaries(st.text(), JSON, max_size=5)


@given(MESSAGES)
def test_a_message_survives_the_wire(message: dict[str, object]) -> None:
    line = wire.encode(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert wire.decode(line[:-1]) == message


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_lines_come_out_as_they_went_in_whatever_the_pieces(
    messages: list[dict[str, object]], sizes: list[int]
) -> None:
    stream = b"".join(map(wire.encode, messages))
    reader = wire.LineReader()
    found: list[object] = []
    while stream:
        for size in sizes:
            piece, stream = stream[:size], stream[size:]
            found += reader.feed(piece)
    assert [wire.decode(line) for line in found if isinstance(line, bytes)] == messages
    assert len(found) == len(messages) and reader.pending == 0


@given(st.lists(st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.integers(1, 30))
def test_a_line_over_the_limit_costs_one_error_and_nothing_else(lines: list[bytes], limit: int) -> None:
    reader = wire.LineReader(limit)
    stream = b"".join(line + b"\n" for line in lines)
    found = [one for start in range(0, len(stream), 7) for one in reader.feed(stream[start : start + 7])]
    expected = [line if len(line) <= limit else None for line in lines if line.strip() or len(line) > limit]
    assert [one if isinstance(one, bytes) else None for one in found] == expected


def test_memory_of_an_endless_line_is_bounded() -> None:
    reader = wire.LineReader(1000)
    for _ in range(100):
        reader.feed(b"x" * 999)
        assert reader.pending <= 1000


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"1", b'"x"', b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_message_is_an_error_of_its_own_kind(line: bytes) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.decode(line)
    assert caught.value.code == "bad-message"


@given(JSON)
def test_only_a_cursor_is_a_cursor(value: object) -> None:
    try:
        cursor = wire.parse_cursor(value)
    except wire.WireError:
        return
    assert cursor is None if value is None else isinstance(cursor, wire.Cursor) and cursor.sequence >= 0
