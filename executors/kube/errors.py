"""What the Kubernetes API can answer instead of doing what it was asked, as exceptions."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

from executors.errors import ProvisionError

#: Overloaded, failing, or away behind something that says so.
_PASSING = (429, 500, 502, 503, 504)


#: What an API server answers where it knows no such API group: its router's words, not a `Status`.
_NO_SUCH_GROUP = "404 page not found"


class ApiError(ProvisionError):
    """The API server refused. ``status`` is the HTTP status, ``reason`` Kubernetes' own word for it (may be empty)."""

    #: Whether the very same request is worth another attempt soon (`executors.kube.patience`).
    passing = False
    #: Seconds after which the server wants to be asked again; None: it did not say.
    retry_after: float | None = None

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.passing = status in _PASSING
        super().__init__(message)

    def after_waiting(self, seconds: float) -> ApiError:
        """The same, which says how long it was waited out in vain."""
        asked = "" if self.retry_after is None else f", and the server wants {self.retry_after:g} s more"
        self.args = (f"{self.message} (for {seconds:.0f} s by now{asked})",)
        return self

    @property
    def transient(self) -> bool:  # type: ignore[override]  # a value in the base class
        """Whether the same may be allowed a moment later: the server is away, overloaded, or has just come back (it
        refuses what it allows until it has read its rules)."""
        return self.status in (0, 401, 403, 429) or self.status >= 500


class UnreachableError(ApiError):
    """No answer: the server is away, or the connection was cut. Trying again may help."""

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(0, "Unreachable", message)
        self.passing = passing


class ForbiddenError(ApiError):
    """403: not allowed, a quota is exceeded, or an admission plugin said no."""


class NotFoundError(ApiError):
    """404, in Kubernetes' own words: there is no such object, or no such kind."""


class ConflictError(ApiError):
    """409: exists already, or is not (any more) the object that was meant."""


class BusyError(ApiError):
    """409 that says nothing of the object: somebody else wrote at the same moment, to a ResourceQuota as a rule.

    Nothing was done, and the same may be done a moment later.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, reason, message)
        self.passing = True

    @property
    def transient(self) -> bool:  # type: ignore[override]  # a value in the base class
        return True


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


def parse_error(
    status: int, body: bytes, what: str, *, retry_after: str | None = None, only_that_object: bool = False
) -> ApiError:
    """The error for an answer; ``what`` says what was asked for, its method first.

    ``retry_after`` is the header of that name. ``only_that_object``: the request named one version of its object.
    """
    reason, text = "", body[:500].decode("utf-8", "replace").strip()
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        reason = str(document.get("reason") or "")
        text = str(document.get("message") or text)
    if status == 404 and not _is_kubernetes_own(document, text, what):
        # Of what stands before the API server (an ingress, a load balancer) while that is away.
        return UnreachableError(f"{what}: the answer (404) is not the API server's: {text[:200]!r}")
    kind = _BY_STATUS.get(status, ApiError)
    if kind is ConflictError and _is_busy(what.partition(" ")[0], reason, text, only_that_object):
        kind = BusyError
    if status == 401:
        text = f"{text or 'Unauthorized'}: the credentials were refused; are they expired, or for another cluster?"
    made = kind(status, reason, f"{what}: {text or f'HTTP status {status}'}")
    made.retry_after = _seconds(retry_after)
    return made


def _is_kubernetes_own(document: Any, text: str, what: str) -> bool:
    """Whether a 404 says that something is not there: by a `Status`, or of an API group that the server does not know,
    the ones of Kubernetes itself apart, as plain text."""
    if isinstance(document, dict) and document.get("kind") == "Status":
        return True
    group = what.partition("/apis/")[2].partition("/")[0]
    return text == _NO_SUCH_GROUP and "." in group


def _is_busy(method: str, reason: str, text: str, only_that_object: bool) -> bool:
    """Whether a 409 is not about the object: only AlreadyExists says that it is there."""
    if reason == "AlreadyExists":
        return False
    return method == "POST" or "resourcequotas" in text or (method in ("PATCH", "PUT") and not only_that_object)


def _seconds(header: str | None) -> float | None:
    """What Retry-After says (RFC 9110, 10.2.3): seconds, or a date."""
    if header is None:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
