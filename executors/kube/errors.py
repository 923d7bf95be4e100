"""What the Kubernetes API can answer instead of doing what it was asked, as exceptions."""

from __future__ import annotations

import json
from typing import Any

from executors.errors import ProvisionError


class ApiError(ProvisionError):
    """The API server refused. ``status`` is the HTTP status, ``reason`` Kubernetes' own word for it (may be empty)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        super().__init__(message)

    @property
    def transient(self) -> bool:  # type: ignore[override]  # a value in the base class
        """Whether the same may be allowed a moment later: the server is away, overloaded, or has just come back (it
        refuses what it allows until it has read its rules)."""
        return self.status in (0, 401, 403, 429) or self.status >= 500


class UnreachableError(ApiError):
    """No answer: the server is away, or the connection was cut. Trying again may help."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


class ForbiddenError(ApiError):
    """403: not allowed, a quota is exceeded, or an admission plugin said no."""


class NotFoundError(ApiError):
    """404."""


class ConflictError(ApiError):
    """409: exists already, or was changed meanwhile."""


class ExpiredError(ApiError):
    """410: the place in the history from which to go on is gone; list again."""


class InvalidError(ApiError):
    """422 or 400: the object is not what Kubernetes takes."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: ExpiredError,
    422: InvalidError,
}


def error_of(status: int, body: bytes, what: str) -> ApiError:
    """The error for an answer; ``what`` says what was asked for."""
    reason, text = "", body[:500].decode("utf-8", "replace").strip()
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        reason = str(document.get("reason") or "")
        text = str(document.get("message") or text)
    if status == 401:
        text = f"{text or 'Unauthorized'}: the credentials were refused; are they expired, or for another cluster?"
    return _BY_STATUS.get(status, ApiError)(status, reason, f"{what}: {text or f'HTTP status {status}'}")
