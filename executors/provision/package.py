"""The agent as one file: a zipapp made from `executors.agent`, which Flux's own Python runs."""

from __future__ import annotations

import io
import re
import zipfile
from functools import cache
from pathlib import Path

import executors.agent
from executors.agent.flux import shell

#: A client waits for the keeper to start, which needs less than the others.
_MAIN = """import sys
if sys.argv[1:2] == ["keep"]:
    from agent.instance.keeper import main
    sys.exit(main(sys.argv[2:]))
from agent.__main__ import main
sys.exit(main())
"""

#: A docstring, and a line that is a comment. No other text in the agent begins and ends its lines so
#: (tests/unit/test_package.py).
_DOCSTRING = re.compile(r'^( *)"""[^"]*(?:"(?!"")[^"]*)*"""$', re.MULTILINE)
_COMMENT = re.compile("^ *#.*$", re.MULTILINE)


@cache
def agent_archive() -> bytes:
    """Returns the zipapp's bytes, the same for the same sources."""
    package = Path(executors.agent.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(package.rglob("*.py")):
            _add(archive, f"agent/{path.relative_to(package).as_posix()}", _without_words(path.read_text()).encode())
        _add(archive, "__main__.py", _MAIN.encode())
    return buffer.getvalue()


def shell_text() -> str:
    """Returns what Flux's job shell does for the agent's jobs, where it is on every node beside the archive."""
    return shell.TEXT


def _without_words(source: str) -> str:
    """The source without docstrings and comments, line by line as before: tracebacks name the lines of the files here.

    Pods without volumes get the archive by a variable, which has a limit, and each agent reads it before it can start.
    """
    source = _DOCSTRING.sub(lambda docstring: docstring[1] + '""' + "\n" * docstring[0].count("\n"), source)
    return _COMMENT.sub("", source)


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # its default date is fixed, so that equal sources give equal archives
    info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data)
