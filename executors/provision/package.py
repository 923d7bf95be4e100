"""The agent as one file: a zipapp made from `executors.agent`, which Flux's own Python runs."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

import executors.agent
from executors.agent import flux_shell

#: A client waits for the keeper to start, which needs less than the others.
_MAIN = """import sys
if sys.argv[1:2] == ["keep"]:
    from agent.keeper import main
    sys.exit(main(sys.argv[2:]))
from agent.__main__ import main
sys.exit(main())
"""


@cache
def agent_archive() -> bytes:
    """The zipapp's bytes; the same sources give the same bytes."""
    package = Path(executors.agent.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.glob("*.py")):
            _add(archive, f"agent/{path.name}", path.read_bytes())
        _add(archive, "__main__.py", _MAIN.encode())
    return buffer.getvalue()


def shell_text() -> str:
    """What Flux's job shell does for the agent's jobs, where it is on every node beside the archive."""
    return flux_shell.TEXT


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # its default date is fixed, so that equal sources give equal archives
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
