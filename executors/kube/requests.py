"""Requests to a Kubernetes API server as one user: credentials, their renewal, and what passes waited out. Thread-safe.

What must not live here: kinds of objects (`executors.kube.api`).
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack
from urllib.parse import urlencode

from executors.errors import ConfigError
from executors.kube.access import ClusterAccess, Credentials, load
from executors.kube.errors import ApiError, UnreachableError, parse_error
from executors.kube.patience import LIMIT, NOBODY_LIMIT, Patience
from executors.kube.proxies import ProxyRefusedError

if TYPE_CHECKING:
    import urllib3

#: Seconds for the answer to a request; a watch has its own.
_TIMEOUT = 30.0
#: The same where somebody waits who can do without, to connect and to be answered each.
_SHORT_TIMEOUT = 5.0


class Asked(TypedDict, total=False):
    """What a request may have besides its method and path."""

    query: Mapping[str, str]
    body: Mapping[str, Any]
    content_type: str
    accept: str


class Requester:
    """One API server, as one user of it."""

    def __init__(self, access: ClusterAccess, credentials: Credentials) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._credentials = credentials
        self._pool = credentials.pool()
        self._renewing = threading.Lock()
        #: Whether there is a server at all.
        self._answered = False
        #: Whether each request waits out what passes. Who has other things to do meanwhile asks again himself.
        self.patient = True

    @property
    def credentials(self) -> Credentials:
        return self._credentials

    @property
    def namespace(self) -> str:
        """The namespace that the context (or the pod) names."""
        return self._credentials.namespace

    @property
    def server(self) -> str:
        return self._credentials.server

    def close(self) -> None:
        """Close idle connections."""
        self._pool.clear()

    def renew(self, refused: Credentials | None = None) -> tuple[Credentials, urllib3.PoolManager]:
        """Read the credentials again: they were refused or have ended, and their file or plugin may have fresh ones.

        Nothing is read where another thread has just done so (``refused`` are not in use any more). Raises ApiError
        (401) where there are none: it worked before, and may again when somebody has logged in.
        """
        with self._renewing:
            with self._lock:
                if refused is not None and self._credentials is not refused:
                    return self._credentials, self._pool
            try:
                fresh = load(self._access)
                pool = fresh.pool()
            except ConfigError as err:
                text = f"the credentials for {self.server} are no longer valid, and new ones cannot be read: {err}"
                raise ApiError(401, "Unauthorized", text) from err
            with self._lock:
                old, self._credentials, self._pool = self._pool, fresh, pool
        old.clear()  # idle connections only
        return fresh, pool

    def request(self, method: str, path: str, *, once: bool = False, **asked: Unpack[Asked]) -> dict[str, Any]:
        """One request; the JSON object that answers it."""
        data = self.send(method, path, once=once, **asked)
        answer: Any
        try:
            answer = json.loads(data or b"{}")
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            text = f"{method} {path}: {self.server} does not answer like a Kubernetes API server: {data[:200]!r}"
            raise ApiError(200, "", text)
        return answer

    def send(self, method: str, path: str, *, once: bool = False, **asked: Unpack[Asked]) -> bytes:
        """One request; the bytes that answer it. A refused token is renewed once, and what passes is waited out, unless
        this is not `patient`.

        What is asked ``once`` is not: the caller asks again anyway, or can do without.

        So a request may reach the server twice, where the first answer was lost: who creates may find its own object
        there (ConflictError), who deletes none (NotFoundError).
        """
        if once:
            return bytes(self._ask(method, path, asked, timeout=_SHORT_TIMEOUT).data)
        patience = Patience()
        while True:
            try:
                return bytes(self._ask(method, path, asked, timeout=_TIMEOUT).data)
            except ApiError as err:
                if not self.patient:
                    raise
                patience.after(err, self._limit(err))

    def _limit(self, err: ApiError) -> float:
        return LIMIT if self._answered or err.status else NOBODY_LIMIT

    def _ask(self, method: str, path: str, asked: Asked, **how: Any) -> urllib3.BaseHTTPResponse:
        """One attempt, or two where the credentials were refused. Raises ApiError."""
        from urllib3.exceptions import HTTPError

        query, body = asked.get("query"), asked.get("body")
        what = f"{method} {path}"
        types = (asked.get("content_type"), asked.get("accept"))
        credentials, answer = self._attempt(method, path, query, body, types, how)
        if answer.status == 401:
            answer.close()
            self.renew(credentials)
            credentials, answer = self._attempt(method, path, query, body, types, how)
        if answer.status < 400:
            self._answered = True
            return answer
        metadata = (body or {}).get("metadata") or {}
        named = bool(metadata.get("resourceVersion") or metadata.get("uid"))
        try:
            data = answer.data
        except HTTPError:
            data = b""  # the status says enough
        finally:
            answer.close()
        wait = answer.headers.get("Retry-After")
        error = parse_error(answer.status, data, what, retry_after=wait, only_that_object=named)
        self._answered = self._answered or not isinstance(error, UnreachableError)
        raise error

    def _attempt(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None,
        types: tuple[str | None, str | None], how: Mapping[str, Any],
    ) -> tuple[Credentials, urllib3.BaseHTTPResponse]:  # fmt: skip
        import urllib3

        with self._lock:
            credentials, pool = self._credentials, self._pool
        if credentials.expired:
            credentials, pool = self.renew(credentials)
        content_type, accept = types
        headers = urllib3.HTTPHeaderDict({"Accept": accept or "application/json"})
        if body is not None:
            headers["Content-Type"] = content_type or "application/json"
        for name, value in credentials.headers():
            headers.add(name, value.encode("utf-8").decode("latin-1"))  # which is what it is written as
        url = credentials.server + path + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = pool.request(method, url, headers=headers, body=data, retries=False, redirect=False, **how)
        except urllib3.exceptions.HTTPError as err:
            raise _unreachable(f"{method} {path}", credentials, err) from err
        return credentials, answer


def _unreachable(what: str, credentials: Credentials, err: Exception) -> UnreachableError:
    """Why there was no answer, and whether there may be one soon."""
    from urllib3.exceptions import ProxyError, SSLError

    cause = err.args[0] if isinstance(err, SSLError) and err.args else err
    through = f" (through {credentials.proxy})" if credentials.proxy is not None else ""
    if isinstance(cause, ssl.SSLCertVerificationError):
        cure = "does certificate-authority(-data) of the kubeconfig belong to this server?"
        text = f"{what}: the certificate of {credentials.server} is not to be trusted: {cause.verify_message}; {cure}"
        return UnreachableError(text, passing=False)
    if isinstance(err, ProxyError) and isinstance(err.original_error, ProxyRefusedError):
        refused = err.original_error
        return UnreachableError(f"{what}: {refused}", passing=refused.status in (502, 503, 504))
    return UnreachableError(f"{what}: {credentials.server} does not answer{through}: {err}")
