"""For which size `doctor` finds room in a namespace, asked of an API server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from executors.cli.doctor import examine
from executors.config import RunConfig, RunSection
from executors.spec import parse_spec
from tests.support.servers import Answer, ApiServer, Asked, kubeconfig


@pytest.mark.parametrize(
    ("pods", "ok", "words"),
    [
        (8, True, "room for 4 pods"),
        (5, True, "not for maxSize 8"),
        (3, None, "room for minSize 2"),
        (1, False, "no room"),
    ],
)
def test_doctor_says_for_which_size_there_is_room(tmp_path: Path, pods: int, ok: bool | None, words: str) -> None:
    hard = {"pods": pods}
    quota = {"metadata": {"name": "team"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": {}}}

    def answer(asked: Asked) -> Answer:
        if asked.path == "/version":
            return Answer(200, {"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        if asked.method == "POST":
            return Answer(201, {"status": {"allowed": True}})
        return Answer(200, {"items": [quota] if "resourcequotas" in asked.path else []})

    spec = parse_spec({"size": 4, "minSize": 2, "maxSize": 8, "containers": [{}]})
    with ApiServer(answer) as server:
        run = replace(RunSection(), kubeconfig=str(kubeconfig(tmp_path, server.url)), namespace="ns")
        found = {one.what: one for one in examine(RunConfig(run, minicluster=spec))}
    assert found["quota"].ok is ok and words in found["quota"].said
