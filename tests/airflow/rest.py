"""Airflow's REST API in JSON, with the token that everyone gets where all are admins."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

_ATTEMPTS = 5
# Values of the API's answers; the tests name the fields that they read.
Json = Any


class RestError(Exception):
    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body}")
        self.status = status


class Rest:
    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""
        # Never by a proxy: it is on this host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **query: str | int) -> Json:
        return self.call("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def call(self, method: str, path: str, body: Mapping[str, Json] | None = None) -> Json:
        """``path`` begins behind /api/v2. RestError for refusals, OSError where nobody listens."""
        if not self._token:
            self._token = self._open("GET", "/auth/token", None)["access_token"]
        for attempt in range(_ATTEMPTS):
            try:
                return self._open(method, f"/api/v2{path}", body)
            except RestError as error:
                # These Airflows keep their state in SQLite, which takes one writer at a time and lets others wait for
                # some seconds only. Nothing of the request has been done then.
                if error.status != 500 or "Database error" not in str(error) or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(1.0)
        raise AssertionError("unreachable")

    def health(self) -> Json:
        return self._open("GET", "/api/v2/monitor/health", None)

    def _open(self, method: str, path: str, body: Mapping[str, Json] | None) -> Json:
        request = urllib.request.Request(self._url + path, method=method)
        request.add_header("Accept", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            with self._opener.open(request, timeout=30) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise RestError(method, path, error.code, error.read().decode(errors="replace")) from error
        return json.loads(text) if text else None


def quoted(*parts: str | int) -> str:
    """A path of these parts; run ids hold '+' and ':'."""
    return "".join("/" + urllib.parse.quote(str(part), safe="") for part in parts)
