"""Values of options as Flux or Slurm writes them. Pure."""

from __future__ import annotations

import math
import re


def seconds(text: str) -> float:
    """Of a duration as Flux writes it (``20s``, ``1.5h``), or as Slurm does (``MM:SS``, ``HH:MM:SS``, ``D-HH:MM:SS``);
    without a unit, minutes. 0 is no limit. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", text)
    if match is not None:
        unit = {"ms": 0.001, "s": 1, "m": 60, "": 60, "h": 3600, "d": 86400}[match[2]]
        return float(match[1]) * unit
    if text in ("inf", "infinity", "UNLIMITED"):
        return 0.0
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text)
    if match is None:
        raise ValueError(text)
    parts = [int(part) for part in match[2].split(":")]
    if match[1] is not None:  # D-HH[:MM[:SS]]
        hours, minutes, rest = (*parts, 0, 0)[:3]
        return float(86400 * int(match[1]) + 3600 * hours + 60 * minutes + rest)
    hours, minutes, rest = parts if len(parts) == 3 else (0, *parts)
    return float(3600 * hours + 60 * minutes + rest)


def size(text: str) -> int:
    """Bytes of a size; without a unit, MB of 2^20 bytes as Slurm and Nextflow count. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise ValueError(text)
    shift: int = {"K": 10, "M": 20, "": 20, "G": 30, "T": 40}[match[2].upper()]
    return math.ceil(float(match[1]) * (1 << shift))


def gpus(text: str) -> int:
    """GPUs of Slurm's ``--gpus``: ``2``, ``MODEL:2``, ``MODEL`` (``a100``, ``2080ti``, ``1g.5gb``).

    Raises ValueError.
    """
    model, _, count = text.rpartition(":")
    if not re.fullmatch(r"\d+", count):
        model, count = text, "1"
    if not text or (model and not re.fullmatch(r"[\w.+-]+", model)):
        raise ValueError(text)
    return int(count)
