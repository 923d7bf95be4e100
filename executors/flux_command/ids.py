"""Ids of jobs as Nextflow takes them: it looks for the first ``f`` of a line and takes the rest. Pure."""

from __future__ import annotations

import re

#: Base 58 as Flux writes its ids (RFC 19).
_DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_FLUX = re.compile(rf"f[{_DIGITS}]+\Z")
_EMBEDDED = re.compile(r"e([0-9a-f]+)-(\d+)\Z")
_PILOT = re.compile(r"p(\d+)\.(\d+)\Z")


def task_id(job_id: str) -> str:
    """``f`` and base 58 digits, for an id of any engine; Flux's own are left as they are. Raises ValueError."""
    if _FLUX.match(job_id):
        return job_id
    pilot = _PILOT.match(job_id)
    if pilot is not None:  # far above the embedded engine's, and those of years of Flux
        return "f" + base58(1 << 62 | int(pilot[1]) << 40 | int(pilot[2]))
    embedded = _EMBEDDED.match(job_id)
    if embedded is None:
        raise ValueError(f"{job_id!r} is not a job id")
    return "f" + base58(int("1" + embedded[1], 16) << 40 | int(embedded[2]))


def base58(number: int) -> str:
    """Raises ValueError for a negative number."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    digits = ""
    while True:
        number, digit = divmod(number, 58)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
