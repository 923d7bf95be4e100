"""Access to a cluster as kubectl has it: who asks, which server, and what is refused by name."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from executors.errors import ConfigError, ProvisionError
from executors.kube import ApiError, ClusterAccess, connect
from executors.kube.access import Credentials, load
from tests.support.servers import Answer, ApiServer, Asked, kubeconfig, make_pki, refusal

SERVER = "https://example.invalid:6443"
VERSION = "client.authentication.k8s.io/v1"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def given(directory: Path, user: Any = None, server: str = SERVER, **cluster: Any) -> Credentials:
    return load(ClusterAccess(str(kubeconfig(directory, server, user, **cluster))))


def refused(directory: Path, user: Any = None, server: str = SERVER, **cluster: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        given(directory, user, server, **cluster)
    return str(caught.value)


# -- who asks


def test_an_impersonated_user_is_named_in_each_request_and_in_full(tmp_path: Path) -> None:
    user = {
        "token": "sesame",
        "as": "jäne",
        "as-uid": "42",
        "as-groups": ["science", "with, comma"],
        "as-user-extra": {"example.org/Scope s": ["a", "b"], "10%": ["c"]},
    }
    with ApiServer() as server:
        connect(ClusterAccess(str(kubeconfig(tmp_path, server.url, user)))).request("GET", "/version")
    [asked] = server.asked
    sent = [
        (name.lower(), value.encode("latin-1").decode())
        for name, value in asked.headers
        if name.lower().startswith(("impersonate", "authorization"))
    ]
    assert sent == [
        ("authorization", "Bearer sesame"),
        ("impersonate-user", "jäne"),
        ("impersonate-uid", "42"),
        ("impersonate-group", "science"),
        ("impersonate-group", "with, comma"),
        ("impersonate-extra-10%25", "c"),
        ("impersonate-extra-example.org%2fscope%20s", "a"),
        ("impersonate-extra-example.org%2fscope%20s", "b"),
    ]


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"as-groups": ["a"]}, "as in users[u]"),
        ({"as": 7}, "as in users[u]"),
        ({"as": "me", "as-groups": "science"}, "as-groups in users[u]"),
        ({"as": "me", "as-user-extra": {"a": "b"}}, "as-user-extra.a in users[u]"),
        ({"token": 12345}, "token in users[u]"),
        ({"token": "a", "username": "b"}, "username in users[u]"),
        ({"tokenFile": "nowhere"}, "tokenFile in users[u]"),
        ({"client-certificate-data": "!!"}, "client-certificate-data in users[u]"),
        ({"client-certificate": "nowhere"}, "client-certificate in users[u]"),
        ({"auth-provider": {"name": "gcp"}}, "gke-gcloud-auth-plugin"),
        ({"auth-provider": {"name": "oidc", "config": {}}}, "has no id-token"),
        ({"exec": {"command": "true", "apiVersion": f"{VERSION}alpha1"}}, "apiVersion in exec of users[u]"),
        ({"exec": {"apiVersion": VERSION}}, "command in exec of users[u]"),
        ({"exec": {"command": "true", "apiVersion": VERSION, "interactiveMode": "Always"}}, "there is none"),
        ({"exec": {"command": "true", "apiVersion": VERSION, "interactiveMode": "Maybe"}}, "Never, IfAvailable"),
        ({"exec": {"command": "true", "apiVersion": VERSION, "policy": 1}}, "policy in exec of users[u]"),
        ({"exec": {"command": "true", "apiVersion": VERSION}, "auth-provider": {"name": "oidc"}}, "together with exec"),
        ("text", "is not a mapping"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(
    tmp_path: Path, user: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert words in refused(tmp_path, user)


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"proxy-url": "ftp://proxy"}, "proxy-url in clusters[c]"),
        ({"proxy-url": "proxy:3128"}, "proxy-url in clusters[c]"),
        ({"certificate-authority": "nowhere.pem"}, "certificate-authority in clusters[c]"),
        ({"certificate-authority-data": "AAAA"}, "holds no PEM block"),
        (
            {"insecure-skip-tls-verify": True, "certificate-authority": "nowhere.pem"},
            "insecure-skip-tls-verify in clusters[c]",
        ),
        (
            {"insecure-skip-tls-verify": True, "certificate-authority-data": "AAAA"},
            "insecure-skip-tls-verify in clusters[c]",
        ),
        ({"insecure-skip-tls-verify": "yes"}, "insecure-skip-tls-verify in clusters[c]"),
        ({"server": ""}, "server in clusters[c]"),
        ({"server": "https://"}, "server in clusters[c]"),
    ],
    ids=str,
)
def test_what_a_cluster_says_that_cannot_be_is_refused_by_name(
    tmp_path: Path, cluster: dict[str, Any], words: str
) -> None:
    path = kubeconfig(tmp_path, SERVER)
    document = yaml.safe_load(path.read_text())
    document["clusters"][0]["cluster"] |= cluster
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError) as caught:
        load(ClusterAccess(str(path)))
    assert words in str(caught.value)


def test_what_kubectl_knows_as_little_is_left_alone_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster: dict[str, Any] = {"disable-compression": True, "api-version": "v1"}
    assert given(tmp_path, {"token": "a", "expiry": "never"}, **cluster)
    assert "expiry" in caplog.text and "api-version" in caplog.text and "disable-compression" not in caplog.text


def test_a_password_is_sent_as_basic_authentication(tmp_path: Path) -> None:
    [(name, value)] = given(tmp_path, {"username": "me", "password": "pä"}).headers()
    assert (name, base64.b64decode(value.removeprefix("Basic ")).decode()) == ("Authorization", "me:pä")


def test_a_context_without_a_user_is_nobody(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:8001")
    document = yaml.safe_load(path.read_text())
    del document["contexts"][0]["context"]["user"]
    path.write_text(yaml.safe_dump(document))
    assert load(ClusterAccess(str(path))).headers() == []


def test_a_token_file_is_read_for_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    found = given(tmp_path, {"tokenFile": "token"})
    assert found.headers() == [("Authorization", "Bearer first")]
    token.write_text("second\n")
    assert found.headers() == [("Authorization", "Bearer second")]
    token.unlink()
    with pytest.raises(ProvisionError, match="cannot be read"):
        found.headers()


def test_a_token_with_a_line_break_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ProvisionError, match="holds a line break") as caught:
        given(tmp_path, {"token": "abc\ndef"}).headers()
    assert "abc" not in str(caught.value)


def _jwt(end: float) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"exp": end}).encode()).decode().rstrip("=")
    return f"x.{body}.y"


def test_the_token_of_oidc_is_taken_as_long_as_it_lasts(tmp_path: Path) -> None:
    def user(end: float) -> dict[str, Any]:
        return {"auth-provider": {"name": "oidc", "config": {"id-token": _jwt(end)}}}

    found = given(tmp_path, user(time.time() + 600))
    assert found.headers()[0][1].startswith("Bearer x.") and not found.expired
    assert "has expired" in refused(tmp_path, user(time.time() - 1))


# -- credential plugins


def _plugin(directory: Path, status: Any, mode: str = "Never", script: str = "") -> dict[str, Any]:
    answer = {"apiVersion": VERSION, "kind": "ExecCredential", "status": status}
    (directory / "answer").write_text(json.dumps(answer))
    program = directory / "plugin"
    program.write_text(
        f'#!/bin/sh\n{script}\necho "$KUBERNETES_EXEC_INFO" >"{directory}/asked"\ncat "{directory}/answer"'
    )
    program.chmod(0o755)
    return {"exec": {"command": "./plugin", "apiVersion": VERSION, "interactiveMode": mode, "provideClusterInfo": True}}


def test_a_plugin_is_found_beside_its_kubeconfig_and_told_of_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    found = given(tmp_path, _plugin(tmp_path, {"token": "abc"}), **{"tls-server-name": "kubernetes"})
    assert found.headers() == [("Authorization", "Bearer abc")]
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked["spec"] == {"interactive": False, "cluster": {"server": SERVER, "tls-server-name": "kubernetes"}}


def test_a_variable_of_a_plugin_without_a_value_is_empty(tmp_path: Path) -> None:
    user = _plugin(
        tmp_path, {"token": "t"}, script='[ "${EMPTY+there}$EMPTY" = there ] && [ "$NULL$FULL" = x ] || exit 3'
    )
    user["exec"]["env"] = [{"name": "EMPTY"}, {"name": "NULL", "value": None}, {"name": "FULL", "value": "x"}]
    assert given(tmp_path, user).headers() == [("Authorization", "Bearer t")]
    for bad in ("text", 5, ["text"], [{"value": "x"}], [{"name": "A", "value": 1}]):
        user["exec"]["env"] = bad
        assert "env in exec of users[u]" in refused(tmp_path, user)


def test_impersonation_holds_beside_a_plugin(tmp_path: Path) -> None:
    user = {**_plugin(tmp_path, {"token": "abc"}), "as": "jane"}
    assert given(tmp_path, user).headers() == [("Authorization", "Bearer abc"), ("Impersonate-User", "jane")]


@pytest.mark.parametrize(
    ("status", "script", "words"),
    [
        ({}, "", "neither a token nor a certificate"),
        ({"token": "a", "clientKeyData": "b"}, "", "a certificate or a key, and not the other"),
        ({"token": "a", "expirationTimestamp": "soon"}, "", "is not a time"),
        ({"token": 1}, "", "its token is not a string"),
        ("text", "", "no ExecCredential with a status"),
        ({"token": "a"}, "echo log in first >&2; exit 3", "ended with 3: log in first"),
        ({"token": "a"}, "echo no json; exit", "it printed no JSON"),
    ],
)
def test_a_plugin_that_gives_nothing_says_why(tmp_path: Path, status: Any, script: str, words: str) -> None:
    said = refused(tmp_path, _plugin(tmp_path, status, script=script))
    assert "the exec of the kubeconfig" in said and "gave no credentials" in said and words in said


def test_a_plugin_that_is_not_installed_is_said_with_its_hint(tmp_path: Path) -> None:
    user = {"exec": {"command": "no-such-plugin-here", "apiVersion": VERSION, "installHint": "install it from there"}}
    assert "install it from there" in refused(tmp_path, user)


def test_credentials_that_end_are_read_anew_before_they_are_refused(tmp_path: Path) -> None:
    user = _plugin(tmp_path, {"token": "first", "expirationTimestamp": "2001-01-01T00:00:00Z"})
    with ApiServer() as server:
        api = connect(ClusterAccess(str(kubeconfig(tmp_path, server.url, user))))
        _plugin(tmp_path, {"token": "second", "expirationTimestamp": "2999-01-01T00:00:00Z"})
        api.request("GET", "/version")
        (tmp_path / "answer").unlink()
        api.request("GET", "/version")
    assert [dict(one.headers)["Authorization"] for one in server.asked] == ["Bearer second", "Bearer second"]


def test_a_refused_token_is_read_anew_once(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Answer:
        good = dict(asked.headers)["Authorization"] == "Bearer second"
        return Answer(200, {}) if good else refusal(401, "Unauthorized")

    with ApiServer(answer) as server:
        path = kubeconfig(tmp_path, server.url, {"token": "first"})
        api = connect(ClusterAccess(str(path)))
        kubeconfig(tmp_path, server.url, {"token": "second"})
        assert api.request("GET", "/version") == {}
        kubeconfig(tmp_path, server.url, {"token": "third"})
        api.renew()
        with pytest.raises(ApiError) as caught:
            api.request("GET", "/version")
    assert caught.value.status == 401 and len(server.asked) == 4


# -- which cluster


def test_of_several_files_the_first_that_has_a_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = kubeconfig(one, "https://first.invalid", {"tokenFile": "mine"})
    second = kubeconfig(two, "https://second.invalid")
    (one / "mine").write_text("of the first")
    document = yaml.safe_load(second.read_text())
    document["current-context"] = "another"
    document["contexts"].append({"name": "another", "context": {"cluster": "c", "user": "u", "namespace": "n"}})
    second.write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'not there'}:{first}:{second}")
    found = load(ClusterAccess())
    assert (found.server, found.namespace) == ("https://first.invalid", "default")
    assert found.headers() == [("Authorization", "Bearer of the first")]
    assert load(ClusterAccess(context="another")).namespace == "n"
    with pytest.raises(ConfigError, match="it has one, another"):
        load(ClusterAccess(context="third"))


@pytest.mark.parametrize(
    "text", ["", "just text", "users: 3", "a: [", "\tx: 1", 'a: !!int ""', "a: !!bool x", "a: !!timestamp x"]
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(ClusterAccess(str(path)))
    assert str(path) in str(caught.value)


def test_a_kubeconfig_may_come_by_a_pipe_which_gives_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `--kubeconfig <(decrypt it)` does; credentials that are refused have it read again."""
    text = kubeconfig(tmp_path, SERVER, {"token": "piped"}).read_bytes()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")  # whose service account is not taken instead
    for way in ("option", "environment"):
        reading, writing = os.pipe()
        try:
            os.write(writing, text)
            os.close(writing)
            path = f"/dev/fd/{reading}"
            monkeypatch.setenv("KUBECONFIG", path if way == "environment" else "")
            access = ClusterAccess(path if way == "option" else None)
            for _ in range(2):
                assert load(access).headers() == [("Authorization", "Bearer piped")]
        finally:
            os.close(reading)


def test_a_named_pipe_that_was_made_anew_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    for token in ("first", "second"):
        os.mkfifo(path)
        text = kubeconfig(tmp_path, SERVER, {"token": token}).read_text()
        writer = threading.Thread(target=path.write_text, args=(text,))
        writer.start()
        for _ in range(2):
            assert load(ClusterAccess(str(path))).headers() == [("Authorization", f"Bearer {token}")]
        writer.join()
        path.unlink()


def test_the_null_device_and_a_folder_are_no_kubeconfigs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/dev/null", str(tmp_path)):
        with pytest.raises(ConfigError, match="is not a file"):
            load(ClusterAccess(path))
        monkeypatch.setenv("KUBECONFIG", path)
        with pytest.raises(ConfigError, match="there is no kubeconfig"):
            load(ClusterAccess())


def test_no_kubeconfig_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no Kubernetes cluster is known"):
        load(ClusterAccess())


def test_a_pod_uses_its_service_account_and_the_proxy_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("token", "abc\n"), ("ca.crt", "pem"), ("namespace", "science")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("executors.kube.access.SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HTTPS_PROXY", "proxy.invalid:3128")
    found = load(ClusterAccess())
    assert (found.server, found.namespace, str(found.proxy)) == (
        "https://[fd00::1]:443", "science", "http://proxy.invalid:3128",
    )  # fmt: skip
    assert found.headers() == [("Authorization", "Bearer abc")]
    monkeypatch.setenv("NO_PROXY", "fd00::/8")
    assert load(ClusterAccess()).proxy is None
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="no service account token"):
        load(ClusterAccess())


def test_access_imports_no_kubernetes_package(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, SERVER)
    code = (
        "import sys; from executors.kube import ClusterAccess, connect\n"
        f"connect(ClusterAccess({str(path)!r}))\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'kubernetes'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- TLS


def test_a_certificate_without_key_identifiers_is_taken_and_a_strangers_is_not(tmp_path: Path) -> None:
    """Python 3.13 asks for them by itself; kubectl does not."""
    pki = make_pki(tmp_path, key_identifiers=False)
    (tmp_path / "other").mkdir()
    other = make_pki(tmp_path / "other")
    with ApiServer(tls=pki.server) as server:
        found = given(tmp_path, server=server.url, **{"certificate-authority": str(pki.ca)})
        context = found.tls()
        assert context is not None and context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        api = connect(ClusterAccess(str(tmp_path / "kubeconfig")))
        assert api.request("GET", "/version") == {"items": []}
        for data, words in ((other.ca, "is not to be trusted"), (None, "is not to be trusted")):
            more = {} if data is None else {"certificate-authority": str(data)}
            path = kubeconfig(tmp_path, server.url, **more)
            with pytest.raises(ApiError, match=words):
                connect(ClusterAccess(str(path))).request("GET", "/version")
        named = {"certificate-authority": str(pki.ca), "tls-server-name": "kubernetes.example"}
        assert connect(ClusterAccess(str(kubeconfig(tmp_path, server.url, **named)))).request("GET", "/version")
        named["tls-server-name"] = "somebody.else"
        with pytest.raises(ApiError, match="is not to be trusted"):
            connect(ClusterAccess(str(kubeconfig(tmp_path, server.url, **named)))).request("GET", "/version")
        encoded = {"certificate-authority-data": base64.encodebytes(pki.ca.read_bytes()).decode()}
        assert connect(ClusterAccess(str(kubeconfig(tmp_path, server.url, **encoded)))).request("GET", "/version")


def test_the_servers_own_certificate_may_be_what_is_trusted(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    with ApiServer(tls=pki.server) as server:
        path = kubeconfig(tmp_path, server.url, **{"certificate-authority": "server.crt"})
        assert connect(ClusterAccess(str(path))).request("GET", "/version")


def test_a_client_certificate_leaves_no_file_and_a_locked_key_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pki(tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    user = {
        "client-certificate": "server.crt",
        "client-key-data": base64.b64encode((tmp_path / "server.key").read_bytes()).decode(),
    }
    assert given(tmp_path, user).tls() is not None
    assert not list(scratch.iterdir())
    command = ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", "server.key", "-out", "locked.key"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="without a password"):
        given(tmp_path, {"client-certificate": "server.crt", "client-key": "locked.key"}).tls()
    with pytest.raises(ConfigError, match="of one pair"):
        given(tmp_path, {"client-certificate": "server.crt", "client-key": "ca.key"}).tls()
