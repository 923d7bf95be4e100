"""Proxies before an API server: which one, and the way through it, for requests and for exec streams alike."""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path

import pytest

from executors.errors import ConfigError
from executors.kube import ApiError, ClusterAccess, connect
from executors.kube.access import load
from executors.kube.proxies import parse_proxy, proxy_of_environment
from tests.support.servers import ApiServer, Proxy, closed_port, kubeconfig, make_pki

_NAMES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize(
    ("server", "environ", "proxy"),
    [
        ("https://api.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "p"}, "http://p:80"),
        ("https://api.example", {"HTTPS_PROXY": "https://p"}, "https://p:443"),
        ("https://api.example", {"HTTPS_PROXY": "socks5://p"}, "socks5://p:1080"),
        ("https://api.example", {"HTTPS_PROXY": "http://[fd00::1]:1/"}, "http://[fd00::1]:1"),
        ("https://api.example", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "p:1", "https_proxy": "q:1"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "", "https_proxy": "q:1"}, "http://q:1"),
        ("https://api.example", {"HTTP_PROXY": "p:1", "ALL_PROXY": "q:1"}, None),
        ("http://api.example", {"HTTP_PROXY": "p:1", "HTTPS_PROXY": "q:1"}, "http://p:1"),
        ("https://localhost:6443", {"HTTPS_PROXY": "p:1"}, None),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": "p:1"}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": "p:1"}, None),
    ],
    ids=str,
)
def test_the_proxy_of_the_environment(server: str, environ: dict[str, str], proxy: str | None) -> None:
    found = proxy_of_environment(server, environ)
    assert (None if found is None else str(found)) == proxy


@pytest.mark.parametrize(
    ("server", "excluded", "through"),
    [
        ("https://api.example", "*", False),
        ("https://api.example", "a,*,b", False),
        ("https://api.example", "example", False),
        ("https://api.example", ".example", False),
        ("https://api.example", "*.example", False),
        ("https://api.example", "API.Example", False),
        ("https://api.example", " api.example ", False),
        ("https://api.example", "ample", True),
        ("https://example", ".example", True),
        ("https://api.example", "api.example.org", True),
        ("https://api.example", "api.example:443", False),
        ("https://api.example:6443", "api.example:443", True),
        ("https://api.example:6443", ".example:6443", False),
        ("https://10.1.2.3:6443", "10.0.0.0/8", False),
        ("https://10.1.2.3:6443", "10.1.2.4/31", True),
        ("https://10.1.2.3:6443", "10.1.2.3", False),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", False),
        ("https://10.1.2.3:6443", "10.1.2.3:443", True),
        ("https://10.1.2.3", "3", True),
        ("https://[fd00::1]:6443", "fd00::/8", False),
        ("https://[fd00::1]:6443", "fd00::1", False),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", False),
        ("https://[fd00::1]:6443", "[fd00::1]:443", True),
        ("https://api.example", "10.0.0.0/99,,:80,/", True),
    ],
)
def test_no_proxy_names_servers_by_suffix_network_and_port(server: str, excluded: str, through: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        found = proxy_of_environment(server, {"HTTPS_PROXY": "p:1", name: excluded})
        assert (found is not None) is through


def test_user_and_password_are_decoded_and_never_shown() -> None:
    proxy = parse_proxy("http://m%40e:p%23a%2Fs:s%25@proxy:3128", "here")
    assert (proxy.user, proxy.password) == ("m@e", "p#a/s:s%")
    assert "p#a" not in f"{proxy} {proxy!r}" and str(proxy) == "http://proxy:3128"
    for bad in ("http://me:se#same@proxy:3128", "http://me:sesame@proxy:port", "socks4://me:sesame@proxy", "http://"):
        with pytest.raises(ConfigError, match=r"^here: ") as caught:
            parse_proxy(bad, "here")
        assert "sesame" not in str(caught.value) and "same" not in str(caught.value)


@pytest.mark.parametrize(
    "bad",
    [
        "http://me:ses/ame@proxy:3128",
        "http://me:ses?ame@proxy:3128",
        "http://me:ses#ame@proxy:3128",
        "http://me:ses\u2100ame@proxy:3128",
        "http://me:ses[ame@proxy:3128",
        "http://me:12/ame@proxy:3128",
        "http://me:12?ame@proxy:3128",
        "http://me:12#ame@proxy:3128",
        "http://me:99999#ame@proxy:3128",
        "ses:ame@proxy:3128",
        "//me:sesame@proxy:3128",
    ],
)
def test_of_a_proxys_url_that_is_none_nothing_is_shown(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(bad, "here")
    [problem] = caught.value.problems
    assert problem.startswith("here: is not a proxy's URL; give http://user:password@host:port, and percent-encode")
    assert not any(part in problem for part in ("ses", "ame@", "12", "99999", "\u2100"))


@pytest.mark.parametrize("kind", ["http", "socks5"])
@pytest.mark.parametrize("credentials", [None, ("us er", "pä:ss")], ids=["open", "closed"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_requests_and_streams_go_through_the_proxy_of_the_kubeconfig(
    tmp_path: Path, kind: str, credentials: tuple[str, str] | None, tls: bool
) -> None:
    pki = make_pki(tmp_path)
    user = "" if credentials is None else "us%20er:p%C3%A4:ss@"
    with ApiServer(tls=pki.server if tls else None) as server, Proxy(kind, credentials) as proxy:
        more = {"proxy-url": f"{kind}://{user}127.0.0.1:{proxy.port}", "certificate-authority": str(pki.ca)}
        access = ClusterAccess(str(kubeconfig(tmp_path, server.url, **more)))
        assert connect(access).request("GET", "/version") == {"items": []}
        _speak(access)
    assert proxy.targets == [f"127.0.0.1:{server.port}"] * 2
    if credentials is not None:
        secret = "us er:pä:ss"
        assert set(proxy.said) == {
            secret if kind == "socks5" else f"Basic {base64.b64encode(secret.encode()).decode()}"
        }


def _speak(access: ClusterAccess) -> None:
    """As an exec stream does: on a socket of its own."""
    credentials = load(access)
    connection: socket.socket = credentials.open_connection(10)
    context = credentials.tls()
    if context is not None:
        connection = context.wrap_socket(connection, server_hostname=credentials.server_name)
    with connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"items": []}')


def test_a_proxy_that_speaks_tls_itself(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    with ApiServer(tls=pki.server) as server, Proxy("http", ("a", "b"), tls=pki.server) as proxy:
        more = {"proxy-url": f"https://a:b@127.0.0.1:{proxy.port}", "certificate-authority": str(pki.ca)}
        access = ClusterAccess(str(kubeconfig(tmp_path, server.url, **more)))
        assert connect(access).request("GET", "/version") == {"items": []}
        _speak(access)
    assert len(proxy.targets) == 2


def test_a_large_answer_passes_a_proxy_that_speaks_tls_itself(tmp_path: Path) -> None:
    pki = make_pki(tmp_path)
    large = {"data": "x" * 500_000}
    with ApiServer(tls=pki.server) as server, Proxy(tls=pki.server) as proxy:
        server._answer = lambda asked: type("A", (), {"status": 200, "body": asked.body, "headers": {}})()
        more = {"proxy-url": f"https://127.0.0.1:{proxy.port}", "certificate-authority": str(pki.ca)}
        access = ClusterAccess(str(kubeconfig(tmp_path, server.url, **more)))
        assert connect(access).request("POST", "/echo", body=large) == large


@pytest.mark.parametrize("kind", ["http", "socks5"])
def test_a_proxy_that_wants_somebody_says_so_at_once(tmp_path: Path, kind: str) -> None:
    with ApiServer() as server, Proxy(kind, ("me", "right")) as proxy:
        user = "" if kind == "http" else "me:wrong@"
        path = kubeconfig(tmp_path, server.url, **{"proxy-url": f"{kind}://{user}127.0.0.1:{proxy.port}"})
        with pytest.raises(ApiError, match=f"the proxy {kind}://127.0.0.1:{proxy.port} ") as caught:
            connect(ClusterAccess(str(path))).request("GET", "/version")
        assert not server.asked and "wrong" not in str(caught.value)
    assert len(proxy.said) == 1


def test_a_proxy_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with ApiServer() as server, closed_port() as port:
        path = kubeconfig(tmp_path, server.url, **{"proxy-url": f"http://127.0.0.1:{port}"})
        with pytest.raises(ApiError, match=f"through http://127.0.0.1:{port}"):
            connect(ClusterAccess(str(path))).request("GET", "/version")
        assert not server.asked


def test_the_kubeconfigs_proxy_counts_before_the_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://environment:1")
    monkeypatch.setenv("NO_PROXY", "*")
    server = "https://api.example:6443"
    assert load(ClusterAccess(str(kubeconfig(tmp_path, server)))).proxy is None
    found = load(ClusterAccess(str(kubeconfig(tmp_path, server, **{"proxy-url": "http://kubeconfig:1"})))).proxy
    assert str(found) == "http://kubeconfig:1"
    assert isinstance(load(ClusterAccess(str(tmp_path / "kubeconfig"))).tls(), ssl.SSLContext)
