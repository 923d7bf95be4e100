"""Requests to a Kubernetes API server, as the administrator of the bed."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


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
        # No proxy of the environment is between us and an address that only this machine has.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({})
        )

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
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with self._opener.open(request, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(error.code, error.read().decode(errors="replace")) from None

    def is_ok(self, url: str) -> bool:
        """Whether a health check, by TLS of the same authority or without, says that all is well."""
        try:
            with self._opener.open(url, timeout=10) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            # Refused or cut off: not yet.
            return False
