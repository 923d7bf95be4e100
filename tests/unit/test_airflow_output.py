"""A job's output on its way into a task's log: nothing lost, nothing twice, wherever it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.output import MAX_LOGGED, OutputError, OutputLog, Result, to_xcom

_LINES = st.lists(
    st.sampled_from([b"", b"a", b"bc d", b"  ", "\u00fc\u00e9".encode(), b"\xff\xfe", b"42", b"M:7"]), max_size=12
)
_CUTS = st.lists(st.integers(0, 60), max_size=8)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@given(_LINES, _LINES, _CUTS, st.integers(0, 20), st.booleans())
def test_lines_are_logged_once_across_a_restart(
    out: list[bytes], err: list[bytes], cuts: list[int], stop: int, ends: bool
) -> None:
    data = {"stdout": b"\n".join(out) + b"\n" * ends, "stderr": b"\n".join(err) + b"\n" * ends}
    pieces = [(name, piece) for name in data for piece in _pieces(data[name], cuts)]
    first = OutputLog(1000)
    logged = [line for name, piece in pieces[:stop] for line in first.feed(name, piece)]
    second = OutputLog(1000, place=first.place)
    for name in data:
        logged += second.feed(name, data[name][second.offset(name) :])
    logged += second.end()
    whole = OutputLog(1000)
    expected = [line for name in data for line in whole.feed(name, data[name])] + whole.end()
    assert sorted(logged) == sorted(expected)
    assert second.result == whole.result


@given(_LINES, _CUTS)
def test_the_result_is_the_last_line_that_is_not_blank(lines: list[bytes], cuts: list[int]) -> None:
    log = OutputLog(1000)
    for piece in _pieces(b"\n".join(lines), cuts):
        log.feed("stdout", piece)
    log.end()
    words = [line for line in lines if line.strip()]
    expected = words[-1].strip().decode("utf-8", "replace") if words else None
    assert (log.result.text if log.result else None) == expected


def test_a_marked_line_is_the_result_and_not_in_the_log() -> None:
    log = OutputLog(1000, marker="M:")
    assert log.feed("stdout", b"before\nno line breakM:") == ["before"]
    assert log.feed("stdout", b'{"a": 1}\nafter\n') == ["no line break", "after"]
    assert log.feed("stderr", b"M:not mine\n") == ["M:not mine"]
    assert log.result == Result('{"a": 1}', 8)


def test_the_result_survives_a_restart_that_came_after_it() -> None:
    first = OutputLog(1000)
    assert first.feed("stdout", b"one\nresult\n\n") == ["one", "result", ""]
    second = OutputLog(1000, place=first.place)
    assert second.feed("stdout", b"one\nresult\n\n"[second.offset("stdout") :]) == []
    assert second.result == Result("result", 6)


def test_a_long_line_is_logged_in_pieces_and_told_as_too_long() -> None:
    log = OutputLog(100)
    size = 3 * MAX_LOGGED + 5
    found = log.feed("stdout", b"x" * size)
    found += log.feed("stdout", b"yy\n")
    assert "".join(found) == "x" * size + "yy"
    assert max(map(len, found)) <= MAX_LOGGED
    assert log.result is not None
    assert log.result.length == size + 2
    with pytest.raises(OutputError, match="has 196615 bytes, more than the 100 of"):
        to_xcom(log.result, "last_line", 100)


def test_what_a_task_gives() -> None:
    line = Result('{"a": [1]}', 10)
    assert to_xcom(line, "json", 100) == {"a": [1]}
    assert to_xcom(line, "last_line", 100) == '{"a": [1]}'
    assert to_xcom(line, "none", 1) is None
    assert to_xcom(None, "last_line", 100) is None
    with pytest.raises(OutputError, match="not JSON"):
        to_xcom(Result("{", 1), "json", 100)
    with pytest.raises(OutputError, match="no line to stdout"):
        to_xcom(None, "json", 100)


def test_the_tail_is_short() -> None:
    log = OutputLog(100)
    log.feed("stderr", b"".join(b"%d\n" % number for number in range(100)))
    assert log.tail == [str(number) for number in range(90, 100)]
