"""Requests to a Kubernetes API server, as the administrator of the bed."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import urllib3


class ApiError(Exception):
    """The API server's answer is an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """JSON requests with a client's certificate. Answers are Any: they are what a version of Kubernetes gives."""

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path) -> None:
        self.server = server
        context = ssl.create_default_context(cafile=str(authority))
        context.load_cert_chain(certificate, key)
        # It keeps connections: a handshake for each of the tests' thousands of looks would cost more than the look.
        self._pool = urllib3.PoolManager(ssl_context=context, retries=False, timeout=10)

    def get(self, path: str) -> Any:
        return json.loads(self.request("GET", path))

    def post(self, path: str, body: object) -> Any:
        return json.loads(self.request("POST", path, body))

    def delete(self, path: str) -> None:
        self.request("DELETE", path)

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """The answer's body; ``path`` is the API server's, or a URL. Raises ApiError, or OSError if nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        url = path if "://" in path else self.server + path
        status, answer = self._ask(method, url, data)
        if status >= 400:
            raise ApiError(status, answer.decode(errors="replace"))
        return answer

    def is_ok(self, url: str) -> bool:
        """Whether a health check, by TLS of the same authority or without, says that all is well."""
        try:
            return self._ask("GET", url)[0] == 200
        except OSError:
            # Refused or cut off: not yet.
            return False

    def _ask(self, method: str, url: str, data: bytes | None = None) -> tuple[int, bytes]:
        try:
            answer = self._pool.request(method, url, body=data, headers={"Content-Type": "application/json"})
        except urllib3.exceptions.HTTPError as err:
            raise OSError(f"{url}: {err}") from err
        return answer.status, answer.data
