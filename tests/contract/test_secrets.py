"""A secret environment is in no jobspec, event, log, command line or file, in whatever form."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import quote

from executors import JobRequest, Session
from executors.provision.local.rundir import base_directory
from tests.conftest import require
from tests.support.environment import environment
from tests.support.sessions import ask
from tests.support.waiting import wait_for

LIMIT = 60.0
SECRET = "s3cret/Wörd'\" $x+y"


def forms(secret: str) -> list[bytes]:
    """The secret in plain, as JSON and URLs write it, and in base64 wherever in a longer text it stands."""
    data = secret.encode()
    found = [data, json.dumps(secret)[1:-1].encode(), quote(secret).encode(), quote(secret, safe="").encode()]
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data)
        # Without the characters that the neighbours have a share in.
        found.append(encoded[(shift * 8 + 5) // 6 : len(encoded) // 4 * 4 - 4])
    return found


def assert_clean(data: bytes, what: object) -> None:
    for form in forms(SECRET):
        assert form not in data, f"{what} holds {form!r}"


def test_a_secret_reaches_its_job_and_no_other_place(session: Session, engine: str, tmp_path: Path, out: Path) -> None:
    require("ps")
    seen = tmp_path / "seen"
    seen.mkdir()
    looks = f"ps axww -o args > {seen}/ps; ls {base_directory(environment()) / session.run_name} > {seen}/ls"
    if engine == "flux":
        for what in ("eventlog", "jobspec", "R"):
            looks += f"; flux job info {'--original' if what == 'jobspec' else ''} $FLUX_JOB_ID {what} > {seen}/{what}"
    request = JobRequest(
        argv=["sh", "-c", f'printf %s "$TOKEN" > {out}; {looks}; read line < {tmp_path}/go'],
        secret_env={"TOKEN": SECRET},
    )
    os.mkfifo(tmp_path / "go")
    [handle] = session.submit([request])
    wait_for(lambda: (seen / ("R" if engine == "flux" else "ls")).exists(), "the job runs")
    listed = json.dumps(ask(session, "list")).encode()
    directory = base_directory(environment()) / session.run_name
    # What a pilot's task waited with is gone once the pilot has told of its start.
    wait_for(lambda: not [*directory.glob("pilot-secret*")], "the secret is on disk no longer")
    places = [*directory.rglob("*"), directory.with_suffix(".log")]
    for path in places:
        if path.is_file():
            assert_clean(path.read_bytes(), path)
    (tmp_path / "go").write_text("\n")
    assert handle.result(LIMIT).ok
    assert out.read_text() == SECRET
    for path in seen.iterdir():
        assert path.stat().st_size, path
        assert_clean(path.read_bytes(), path)
    assert_clean(listed, "the job list")
    assert_clean(repr(request).encode() + repr(handle).encode(), "repr")
    # The file that carried it is removed when the job starts.
    assert not any("env-" in name for name in (seen / "ls").read_text().split())


def test_every_task_of_a_job_gets_the_secret(session: Session, tmp_path: Path) -> None:
    request = JobRequest(
        argv=["sh", "-c", f'printf %s "$TOKEN" > {tmp_path}/$FLUX_TASK_RANK'], tasks=2, secret_env={"TOKEN": SECRET}
    )
    [handle] = session.submit([request])
    assert handle.result(LIMIT).ok
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == SECRET


def test_a_job_that_never_starts_leaves_no_secret(session: Session) -> None:
    directory = base_directory(environment()) / session.run_name
    [held] = session.submit([JobRequest(argv=["true"], urgency=0, secret_env={"TOKEN": SECRET})])
    wait_for(lambda: held.id is not None, "it is submitted")
    held.cancel()
    assert held.result(LIMIT).outcome.name == "CANCELLED"
    wait_for(lambda: not [path for path in directory.iterdir() if path.name.startswith("env-")], "its file is gone")


def test_the_forms_are_found_where_they_are() -> None:
    # A search that cannot find anything proves nothing.
    for prefix in ("", "x", "xy", "xyz"):
        text = f"{prefix}{SECRET} and more"
        for data in (text.encode(), json.dumps(text).encode(), quote(text).encode(), base64.b64encode(text.encode())):
            assert any(form in data for form in forms(SECRET))
