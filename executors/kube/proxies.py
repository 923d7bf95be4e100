"""Which proxy leads to an API server, and connections through it. As kubectl, by Go's rules (x/net/http/httpproxy).

A kubeconfig's ``proxy-url`` always counts. Without one HTTPS_PROXY does (HTTP_PROXY for a plain http server), unless
NO_PROXY names the server, which localhost and loopback addresses never need.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from urllib.parse import SplitResult, unquote, urlsplit

from executors.errors import ConfigError

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Proxy:
    """Its text has no password."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"


class ProxyRefusedError(OSError):
    """The proxy does not lead to the API server. ``status`` is its HTTP status, 0 for what is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_proxy(text: str, where: str) -> Proxy:
    """A proxy's URL; ``where`` it was given. Raises ConfigError, without the URL: it may hold a password."""
    text = text.strip()
    cure = "percent-encode what is special in its user and password (%23 for #, %2F for /, %40 for @)"
    bad = ConfigError([f"{where}: is not a proxy's URL; give http://user:password@host:port, and {cure}"])
    try:
        url = urlsplit(text)
        host, port, scheme = url.hostname or "", url.port, url.scheme.lower()
    except ValueError:
        raise bad from None  # without urllib's own words: they have parts of it
    if scheme not in _PORTS:
        if not text.lower().startswith(f"{scheme}://") or not scheme:
            raise bad
        known = ", ".join(sorted(_PORTS))
        raise ConfigError([f"{where}: proxies of scheme {scheme!r} are not supported; give one of {known}"])
    # A password with one of /?# ends the host's part early, and its beginning may look like a port.
    if not host or url.path not in ("", "/") or url.query or url.fragment:
        raise bad
    return Proxy(scheme, host, port or _PORTS[scheme], unquote(url.username or ""), unquote(url.password or ""))


def proxy_of_environment(server: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy that the environment names for a server (a URL). Raises ConfigError."""
    url = urlsplit(server)
    names = ("HTTPS_PROXY", "https_proxy") if url.scheme == "https" else ("HTTP_PROXY", "http_proxy")
    name = next((one for one in names if environ.get(one)), None)
    excluded = next((environ[one] for one in ("NO_PROXY", "no_proxy") if environ.get(one)), "")
    if name is None or not _goes_through(url, excluded):
        return None
    given = environ[name]
    return parse_proxy(given if "://" in given else f"http://{given}", f"environment {name}")


def _goes_through(url: SplitResult, excluded: str) -> bool:
    host = (url.hostname or "").lower()
    port = str(url.port or _PORTS.get(url.scheme, 0))
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    return not any(_matches(entry.strip().lower(), host, port, address) for entry in excluded.split(","))


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def _matches(entry: str, host: str, port: str, address: _Address | None) -> bool:
    """Whether an entry of NO_PROXY names a server: ``*``, a network, an address or a domain, perhaps with a port."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address is not None and address in network
    name, wanted = _host_and_port(entry)
    if not name or (wanted and wanted != port):
        return False
    if address is not None or _address(name) is not None:
        return address is not None and address == _address(name)
    suffix = name[1:] if name.startswith("*.") else name
    return host.endswith(suffix) if suffix.startswith(".") else host == suffix or host.endswith(f".{suffix}")


def _host_and_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = entry.partition(":")
    return (host, port) if entry.count(":") == 1 else (entry, "")


# -- connections


def open_connection(
    host: str, port: int, proxy: Proxy | None, timeout: float | None, tls: Callable[[], ssl.SSLContext]
) -> socket.socket:
    """A connection to a server; what is not for its proxy begins after this. Raises OSError, `ProxyRefusedError`.

    ``tls``: for the proxy itself, where its scheme is https.
    """
    first = (host, port) if proxy is None else (proxy.host, proxy.port)
    connection = socket.create_connection(first, timeout)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if proxy is None:
            return connection
        if proxy.scheme == "https":
            connection = tls().wrap_socket(connection, server_hostname=proxy.host)
        try:
            _ask(connection, proxy, host, port)
        except HTTPException as err:
            raise ProxyRefusedError(f"{proxy} does not answer like a proxy: {err!r}") from err
        return _outside_of_tls(connection) if isinstance(connection, ssl.SSLSocket) else connection
    except BaseException:
        connection.close()
        raise


def _ask(connection: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    if proxy.scheme.startswith("socks5"):
        _ask_socks(connection, proxy, host, port)
        return
    target = authority(host, port)
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
    if proxy.user or proxy.password:
        secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        head += f"Proxy-Authorization: Basic {secret}\r\n"
    connection.sendall(f"{head}\r\n".encode())
    answer = HTTPResponse(connection, method="CONNECT")
    try:
        answer.begin()
    finally:
        answer.close()
    if answer.status != 200:
        cure = ""
        if answer.status == 407:
            cure = "; give it a user and a password it takes (http://user:password@host:port, percent-encoded)"
        text = f"the proxy {proxy} does not connect to {target}: {answer.status} {answer.reason}{cure}"
        raise ProxyRefusedError(text, answer.status)


#: RFC 1928, 6.
_SOCKS_ERRORS = {
    1: "general failure", 2: "not allowed by its rules", 3: "network unreachable", 4: "host unreachable",
    5: "connection refused", 6: "TTL expired", 7: "command not supported", 8: "address type not supported",
}  # fmt: skip


def _ask_socks(connection: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    """RFC 1928, and RFC 1929 for user and password. Names are resolved by the proxy."""
    with_user = bool(proxy.user or proxy.password)
    connection.sendall(b"\x05\x02\x00\x02" if with_user else b"\x05\x01\x00")
    version, method = _exactly(connection, 2)
    if version != 5:
        raise ProxyRefusedError(f"{proxy} does not answer like a SOCKS5 proxy")
    if method == 2 and with_user:
        user, password = proxy.user.encode(), proxy.password.encode()
        if len(user) > 255 or len(password) > 255:
            raise ProxyRefusedError(f"the user or the password for {proxy} is longer than the 255 bytes of SOCKS5")
        connection.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(connection, 2)[1]:
            raise ProxyRefusedError(f"the proxy {proxy} refuses the user and password that its URL has", 407)
    elif method != 0:
        raise ProxyRefusedError(f"the proxy {proxy} wants another user, or another kind of authentication", 407)
    address = _address(host)
    if address is None:
        name = host.encode("idna")
        where = b"\x03" + bytes([len(name)]) + name
    else:
        where = (b"\x01" if address.version == 4 else b"\x04") + address.packed
    connection.sendall(b"\x05\x01\x00" + where + port.to_bytes(2, "big"))
    _, code, _, kind = _exactly(connection, 4)
    if code:
        said = _SOCKS_ERRORS.get(code, f"error {code}")
        status = 503 if code in (1, 3, 4, 5, 6) else 0
        raise ProxyRefusedError(f"the proxy {proxy} does not connect to {authority(host, port)}: {said}", status)
    length = {1: 4, 4: 16}.get(kind) or _exactly(connection, 1)[0]
    _exactly(connection, length + 2)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionResetError("the proxy closed the connection")
        data += piece
    return data


def _outside_of_tls(secure: ssl.SSLSocket) -> socket.socket:
    """The near end of a connection through a proxy that is spoken to in TLS: Python cannot put TLS into TLS."""
    near, far = socket.socketpair()
    near.settimeout(secure.gettimeout())
    # A daemon: it ends when one of the two ends is closed.
    threading.Thread(target=_carry, args=(secure, far), name="proxy-tls", daemon=True).start()
    return near


def _carry(secure: ssl.SSLSocket, plain: socket.socket) -> None:
    """Both ways, by one thread: a TLS socket takes no two at once."""
    out, back = bytearray(), bytearray()
    with contextlib.suppress(OSError), secure, plain:
        secure.setblocking(False)
        plain.setblocking(False)
        try:
            while True:
                _carry_some(secure, plain, out, back)
        except ConnectionResetError:
            # The last message before the end.
            plain.settimeout(30.0)
            plain.sendall(back)


def _carry_some(secure: ssl.SSLSocket, plain: socket.socket, out: bytearray, back: bytearray) -> None:
    _send(plain, back)
    _receive(plain, out)
    wants = _receive(secure, back) | _send(secure, out)
    _send(plain, back)
    poll = select.poll()
    poll.register(secure, wants)
    poll.register(plain, (select.POLLOUT if back else 0) | (select.POLLIN if len(out) < _PIECE else 0))
    if secure.pending() and len(back) < _PIECE:
        return
    for number, event in poll.poll():
        if number == plain.fileno() and event & (select.POLLHUP | select.POLLERR) and not event & select.POLLIN:
            raise ConnectionResetError("closed")


def _receive(source: socket.socket, buffer: bytearray) -> int:
    """What is there, as far as there is room; the poll event to wait for. Raises OSError at the end."""
    if len(buffer) >= _PIECE:
        return 0
    try:
        data = source.recv(_PIECE)
    except (ssl.SSLWantReadError, BlockingIOError):
        return select.POLLIN
    except ssl.SSLWantWriteError:
        return select.POLLOUT
    if not data:
        raise ConnectionResetError("closed")
    buffer += data
    return select.POLLIN


def _send(sink: socket.socket, buffer: bytearray) -> int:
    if not buffer:
        return 0
    try:
        # The same bytes again where TLS has to wait.
        sent = sink.send(bytes(buffer[: 16 * 1024]))
    except (ssl.SSLWantWriteError, BlockingIOError):
        return select.POLLOUT
    except ssl.SSLWantReadError:
        return select.POLLIN
    del buffer[:sent]
    return select.POLLOUT if buffer else 0
