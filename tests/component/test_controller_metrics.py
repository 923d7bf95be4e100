"""Who may read the controller's metrics, and what they say."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.controller.metrics import Gate, Line, MetricsServer, prometheus_text
from executors.controller.serving import HealthServer
from executors.errors import ConfigError
from executors.kube import UnreachableError


class Answers:
    """An API server that knows one token, whose user may read or not."""

    def __init__(self, *, may: bool = True, away: bool = False) -> None:
        self.may, self.away = may, away
        self.asked: list[str] = []

    def request(self, method: str, path: str, *, body: Any, once: bool) -> dict[str, Any]:
        if self.away:
            raise UnreachableError("away")
        self.asked.append(body["kind"])
        if body["kind"] == "TokenReview":
            good = body["spec"]["token"] == "good"
            return {"status": {"authenticated": good, "user": {"username": "prometheus", "groups": ["g"]}}}
        assert body["spec"]["user"] == "prometheus"
        assert body["spec"]["nonResourceAttributes"] == {"path": "/metrics", "verb": "get"}
        return {"status": {"allowed": self.may}}


def gate(answers: Answers) -> Gate:
    return Gate(answers)  # type: ignore[arg-type]  # all that it uses


def test_who_may_read_is_the_api_servers_to_say() -> None:
    answers = Answers()
    one = gate(answers)
    assert [one.status(text) for text in ("", "Basic x", "Bearer bad", "Bearer good")] == [401, 401, 401, 200]
    assert gate(Answers(may=False)).status("Bearer good") == 403
    assert gate(Answers(away=True)).status("Bearer good") == 503
    asked = len(answers.asked)
    assert one.status("Bearer good") == 200 and len(answers.asked) == asked, "not for each scrape"


def test_the_text_is_prometheus() -> None:
    lines = [
        Line("a_total", "Of all.", "counter", 3, (("result", "done"),)),
        Line("a_total", "Of all.", "counter", 1, (("result", "failed"),)),
        Line("b", "Now.", "gauge", 0.5),
    ]
    assert prometheus_text(lines).splitlines() == [
        "# HELP a_total Of all.",
        "# TYPE a_total counter",
        'a_total{result="done"} 3',
        'a_total{result="failed"} 1',
        "# HELP b Now.",
        "# TYPE b gauge",
        "b 0.5",
    ]


def make_certificate(directory: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    argv += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{directory}/tls.key"]
    argv += ["-out", f"{directory}/tls.crt"]
    try:
        subprocess.run(argv, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed; install it to test TLS")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    make_certificate(tmp_path)
    return tmp_path


@pytest.fixture
def server(certificate: Path) -> Iterator[MetricsServer]:
    found = MetricsServer(0, certificate, gate(Answers()), lambda: "x 1\n")
    yield found
    found.close()


def test_only_over_tls_and_with_a_token(server: MetricsServer, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate / "tls.crt"))

    def get(path: str, token: str) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found

    assert get("/metrics", "good") == (200, b"x 1\n")
    assert get("/metrics", "bad") == (401, b"")
    assert get("/other", "good") == (404, b"")
    plain = http.client.HTTPConnection("localhost", server.port, timeout=10)
    plain.request("GET", "/metrics", headers={"Authorization": "Bearer good"})
    with pytest.raises((http.client.HTTPException, OSError)):
        plain.getresponse()
    plain.close()


def test_a_renewed_certificate_is_used_and_half_of_one_is_not(server: MetricsServer, certificate: Path) -> None:
    def served() -> str:
        return ssl.get_server_certificate(("localhost", server.port))

    key = (certificate / "tls.key").read_bytes()
    before = served()
    (certificate / "tls.key").write_text("half")
    os.utime(certificate / "tls.crt", (1, 1))
    assert served() == before
    (certificate / "tls.key").write_bytes(key)
    make_certificate(certificate)
    assert served() == (certificate / "tls.crt").read_text() != before


def test_a_directory_without_a_certificate_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--metrics-tls: .*give a directory with tls.crt and tls.key"):
        MetricsServer(0, tmp_path, gate(Answers()), lambda: "")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_probes_are_answered(address: str) -> None:
    if ":" in address and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine: boot without ipv6.disable=1")
    server = HealthServer(0, {"/healthz": lambda: True, "/readyz": lambda: False})
    found = []
    for path in ("/healthz", "/readyz", "/x"):
        connection = http.client.HTTPConnection(address, server.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        found.append(answer.status)
        connection.close()
    server.close()
    assert found == [200, 503, 404]
