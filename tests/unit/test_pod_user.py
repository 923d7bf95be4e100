"""Pods that share the client's files are its own user's; what they still cannot write to is told once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from executors.provision.kubernetes.user import own_user, shares_files, user_of
from executors.render import MiniCluster, PodUser, Program, render_direct, spec_hash
from executors.spec import MiniClusterSpec, parse_spec
from snakemake_executor_flux.places import NotShared, RemotePaths, find_places

PROGRAM = Program(b"zip", (), max_lifetime=60, ttl=60)


def spec_with(*volumes: dict[str, Any], **more: Any) -> MiniClusterSpec:
    container = {"image": "i", "volumes": {f"v{at}": one for at, one in enumerate(volumes)}}
    return parse_spec({"size": 1, "flux": {"container": {"disable": True}}, "containers": [container], **more})


@pytest.mark.parametrize(
    ("volume", "shared"),
    [
        ({"claimName": "work", "path": "/data"}, True),
        ({"hostPath": "/elsewhere", "path": "/data/project"}, True),
        ({"claimName": "work", "path": "/data", "readOnly": True}, False),
        ({"claimName": "work", "path": "/database"}, False),
        ({"emptyDir": True, "path": "/data"}, False),
        ({"configMapName": "work", "path": "/data"}, False),
    ],
)
def test_files_are_shared_where_the_working_directory_is_in_a_volume(volume: dict[str, Any], shared: bool) -> None:
    assert shares_files(spec_with(volume), "/data/project") is shared


def someone(monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, groups: list[int]) -> None:
    for name, value in {"getuid": uid, "getgid": gid, "getgroups": groups}.items():
        monkeypatch.setattr(os, name, lambda value=value: value)


def test_roots_pods_are_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    someone(monkeypatch, 0, 0, [0, 4])
    assert own_user() is None


def test_nobody_is_given_roots_group(monkeypatch: pytest.MonkeyPatch) -> None:
    someone(monkeypatch, 4711, 0, [0, 100, 4711])
    assert own_user() == PodUser(4711, 4711, (100,))


def test_a_number_that_kubernetes_does_not_take_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    someone(monkeypatch, 4711, 100, [100, 2**31, 7])
    assert own_user() == PodUser(4711, 100, (7,))
    someone(monkeypatch, 2**31, 100, [])
    assert own_user() is None


def test_a_working_directory_that_is_gone_is_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "getcwd", gone)
    assert user_of(spec_with({"claimName": "work", "path": "/"})) is None


def security(user: PodUser | None, **pod: Any) -> dict[str, Any]:
    made = render_direct(MiniCluster("mc", "ns", spec_with(pod=pod), user=user), PROGRAM, "")
    found: dict[str, Any] = made[0]["spec"]["template"]["spec"]["securityContext"]
    return found


ME = PodUser(4711, 100, (7, 8))


def test_pods_are_the_given_user_unless_the_spec_names_one() -> None:
    mine = security(ME)
    assert (mine["runAsUser"], mine["runAsGroup"], mine["supplementalGroups"]) == (4711, 100, [7, 8])
    assert mine["runAsNonRoot"] is True
    assert security(None)["runAsUser"] == 1000 and "supplementalGroups" not in security(None)
    other = security(ME, securityContext={"runAsUser": 33})
    assert other["runAsUser"] == 33 and "runAsGroup" not in other and "supplementalGroups" not in other


def test_another_user_of_the_same_run_asks_for_the_same_spec() -> None:
    """Whose pods they are depends on where a command was typed, which must not keep it from finding its run."""
    one = MiniCluster("mc", "ns", spec_with(), user=ME)
    assert spec_hash(one, PROGRAM) == spec_hash(MiniCluster("mc", "ns", spec_with()), PROGRAM)


# -- what cannot be written to


def places(work: Path, logs: Path, bad: Path | None, *, shared: bool = True) -> RemotePaths:
    def unwritable(paths: Sequence[str]) -> list[str]:
        return [f"{path} belongs to user 5" for path in paths if path == str(bad)]

    def kinds(paths: Sequence[str]) -> list[str | None]:
        return ["directory" if Path(path).is_dir() else None for path in paths]

    return find_places(
        kinds, str(work), remote=True, files_shared=shared, software_shared=False, unwritable=unwritable, logs=str(logs)
    )


def test_directories_that_jobs_cannot_write_to_are_refused_with_their_owner_and_the_cure(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    assert places(tmp_path, logs, None).files
    cure = rf"user 5.*runAsUser: {os.getuid()}, runAsGroup: {os.getgid()}"
    with pytest.raises(NotShared, match=rf"working directory: {tmp_path} .*{cure}"):
        places(tmp_path, logs, tmp_path)
    with pytest.raises(NotShared, match=rf"log directory: {logs} .*{cure}"):
        places(tmp_path, logs, logs)
    assert not places(tmp_path, logs, tmp_path, shared=False).files


def test_a_log_directory_that_is_not_in_the_pods_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotShared, match=r"log directory .*nowhere is not in the pods"):
        places(tmp_path, tmp_path / "nowhere", None)
