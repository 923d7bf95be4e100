"""`sys.path` as it was before any workflow was read.

Snakemake puts the directories of Snakefiles first on it, so that a workflow finds its modules. What this package and
its libraries import late must not be found there: ``random.py`` may be somebody's analysis.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: Snakemake imports its plugins before it reads a workflow.
AT_START = tuple(sys.path)
_CWD = os.getcwd()


@contextmanager
def without_the_workflow() -> Iterator[None]:
    """Within, modules are found where they were found at the start."""
    whole = list(sys.path)
    sys.path[:] = AT_START
    try:
        yield
    finally:
        sys.path[:] = whole


def given_by_start() -> str | None:
    """The directory that ``python -m snakemake`` or ``python -c`` has put first, where workflows may import from;
    None for the program ``snakemake``."""
    main = sys.modules["__main__"]
    by_module = getattr(main, "__spec__", None) is not None
    by_text = getattr(main, "__file__", None) is None
    if sys.flags.safe_path or not AT_START or not (by_module or by_text):
        return None
    return AT_START[0] or _CWD
