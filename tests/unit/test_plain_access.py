"""Kubeconfigs without the kubernetes package: the same as with it, or left to it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.errors import ProvisionError
from executors.kube.access import ClusterAccess, _by_package, load
from executors.kube.plain import NotPlainError, PlainCredentials, of_kubeconfig
from tests.conftest import missing


def _write(directory: Path, user: Any, cluster: Any = None, **context: Any) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", **context}},
            {"name": "two", "context": {"cluster": "c", "user": "u", "namespace": "second"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://example.invalid:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def _certificate(directory: Path) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        missing("openssl", "no certificate can be made: openssl is not installed")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=me"]
    command += ["-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return (directory / "cert.pem").read_text(), (directory / "key.pem").read_text()


@pytest.mark.parametrize("context", [None, "two"])
@pytest.mark.parametrize(
    "cluster", [{}, {"insecure-skip-tls-verify": True}, {"tls-server-name": "kubernetes"}], ids=str
)
def test_the_same_as_the_package_says(tmp_path: Path, cluster: dict[str, Any], context: str | None) -> None:
    path = _write(tmp_path, {"token": "abc"}, cluster)
    plain = of_kubeconfig(path, context)
    package = _by_package(ClusterAccess(str(path), context))
    for name in ("server", "namespace", "server_name", "proxy"):
        assert getattr(plain, name) == getattr(package, name)
    assert plain.headers() == package.headers()
    ours, theirs = plain.tls(), package.tls()
    assert ours is not None and theirs is not None
    assert (ours.check_hostname, ours.verify_mode) == (theirs.check_hostname, theirs.verify_mode)


def test_certificates_come_from_files_or_from_data_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = _certificate(tmp_path)
    encoded = {
        "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
        "client-key-data": base64.b64encode(key.encode()).decode(),
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    by_data = of_kubeconfig(_write(tmp_path, encoded, {"certificate-authority": "cert.pem"}), None)
    by_file = of_kubeconfig(
        _write(
            tmp_path, {"client-certificate": "cert.pem", "client-key": "key.pem"}, {"certificate-authority": "cert.pem"}
        ),
        None,
    )
    assert by_data == by_file
    context = by_data.tls()
    assert context is not None and len(context.get_ca_certs()) == 1
    assert not list(scratch.iterdir())


def test_a_token_file_is_read_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    plain = of_kubeconfig(_write(tmp_path, {"tokenFile": str(token)}), None)
    assert plain.headers() == {"authorization": "Bearer first"}
    token.write_text("second\n")
    assert plain.headers() == {"authorization": "Bearer second"}
    token.unlink()
    with pytest.raises(ProvisionError, match="cannot be read"):
        plain.headers()


def test_a_token_with_a_line_break_is_refused_without_showing_it(tmp_path: Path) -> None:
    plain = of_kubeconfig(_write(tmp_path, {"token": "abc\ndef"}), None)
    with pytest.raises(ProvisionError, match="holds a line break") as caught:
        plain.headers()
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("user", "cluster"),
    [
        ({"exec": {"command": "true"}}, {}),
        ({"auth-provider": {"name": "oidc"}}, {}),
        ({"username": "me", "password": "x"}, {}),
        ({}, {}),
        ({"token": "x"}, {"proxy-url": "http://proxy"}),
        ({"token": "x"}, {"certificate-authority": "missing.pem"}),
        ({"client-certificate-data": "!!"}, {}),
        ("text", {}),
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_the_package(tmp_path: Path, user: Any, cluster: dict[str, Any]) -> None:
    with pytest.raises(NotPlainError):
        of_kubeconfig(_write(tmp_path, user, cluster), None)


def test_a_proxy_is_left_to_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    found = load(ClusterAccess(str(_write(tmp_path, {"token": "x"}))))
    assert not isinstance(found, PlainCredentials)
    assert found.proxy == "http://proxy.invalid:3128"


def test_joining_by_a_token_imports_no_kubernetes(tmp_path: Path) -> None:
    path = _write(tmp_path, {"token": "x"})
    code = (
        "import sys; from executors.kube import ClusterAccess, connect\n"
        f"connect(ClusterAccess({str(path)!r}))\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'kubernetes'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
