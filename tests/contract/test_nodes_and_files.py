"""Nodes of an instance, draining, and small files."""

from __future__ import annotations

import pytest

from executors import JobRequest, Session
from tests.support.sessions import ask
from tests.support.waiting import LIMIT


def test_a_small_file_travels_there_and_back(session: Session) -> None:
    data = "AAH/Cg=="
    ask(session, "put", path="sub/file", data=data)
    answer = ask(session, "get", path="sub/file")
    assert (answer["data"], answer["eof"], answer["size"]) == (data, True, 4)


def test_resources_name_the_nodes(session: Session, node_name: str) -> None:
    [node] = session.nodes()
    assert node.cores >= 1 and node.host == node_name and node.up and not node.drained
    assert node.memory is not None and node.memory > 1e8


def test_a_drained_node_starts_nothing_until_it_is_undrained(session: Session) -> None:
    ask(session, "drain", ranks="0", reason="test")
    assert session.nodes()[0].drained
    [handle] = session.submit([JobRequest(argv=["true"])])
    with pytest.raises(TimeoutError):
        handle.result(0.5)
    ask(session, "drain", ranks="0", undo=True)
    assert handle.result(LIMIT).ok
