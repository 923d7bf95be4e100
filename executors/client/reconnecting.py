"""Opening a stream again after a cut, for as long as there is hope."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from executors.client.clock import MONOTONIC, Clock
from executors.client.greeting import ReplacedError
from executors.errors import TransportError

if TYPE_CHECKING:
    from tenacity import RetryCallState


def reopen(
    open_stream: Callable[[], object],
    *,
    is_gone: Callable[[], str | None],
    patience: float,
    closing: threading.Event,
    clock: Clock = MONOTONIC,
) -> None:
    """Call ``open_stream`` until it succeeds. ``is_gone`` says why the agent cannot come back; None: it may.

    Raises TransportError after ``patience`` seconds, when it is gone, or once ``closing`` is set; and what
    ``open_stream`` raises, but OSErrors that may pass.
    """
    import tenacity  # imported after a cut only: it costs a tenth of the package's import

    def may_retry(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome is not None else None
        return isinstance(error, OSError) and not isinstance(error, ReplacedError) and not closing.is_set()

    why: str | None = None
    deadline = clock.now() + patience

    def stop(_: RetryCallState) -> bool:
        nonlocal why
        why = is_gone()
        return why is not None or clock.now() > deadline

    retrying = tenacity.Retrying(
        retry=may_retry,
        stop=stop,
        wait=tenacity.wait_exponential_jitter(multiplier=0.05, max=2.0, jitter=0.05),
        sleep=lambda seconds: clock.pause(seconds, closing),
        reraise=True,
    )
    try:
        retrying(open_stream)
    except OSError as err:
        raise TransportError(why or is_gone() or f"it did not come back: {err}") from err
