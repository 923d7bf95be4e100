"""Connections for requests, opened by our own function: a proxy is then the same to requests and to exec streams."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from executors.kube.proxies import ProxyRefusedError

if TYPE_CHECKING:
    import urllib3


def make_pool(
    open_connection: Callable[[float | None], socket.socket], tls: ssl.SSLContext | None, server_name: str
) -> urllib3.PoolManager:
    """A pool whose connections go to one server. It is extended as urllib3's own ``contrib.socks`` does."""
    import urllib3
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

    def connect(self: Any) -> socket.socket:
        timeout = self.timeout if isinstance(self.timeout, int | float) else None
        try:
            return open_connection(timeout)
        except TimeoutError as err:
            raise ConnectTimeoutError(self, f"no connection within {timeout:g} s") from err
        except ProxyRefusedError as err:
            raise ProxyError(str(err), err) from err
        except OSError as err:
            raise NewConnectionError(self, str(err)) from err

    class Http(urllib3.connection.HTTPConnection):
        _new_conn = connect

    class Https(urllib3.connection.HTTPSConnection):
        _new_conn = connect

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    # None: not given, which is not the same to urllib3.
    named: dict[str, Any] = {"server_hostname": server_name} if server_name else {}
    made = urllib3.PoolManager(ssl_context=tls, maxsize=4, **named)
    made.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}
    return made
