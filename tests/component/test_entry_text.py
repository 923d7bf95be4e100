"""The entry script is put together whole, and shells can read it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import executors.render.inside
from executors.render.entry import ENTRY_SCRIPT

INSIDE = Path(executors.render.inside.__file__).parent
PROGRAMS = sorted(path for path in INSIDE.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.stem))
def test_each_program_is_in_the_script_once(program: Path) -> None:
    text = program.read_text()
    assert ENTRY_SCRIPT.count(text) == 1
    before, after = ENTRY_SCRIPT.split(text)
    if re.search(r"<<'PYTHON'[^\n]*\n$", before):
        assert after.startswith("PYTHON\n")
    else:
        assert before.endswith(" -c '\n") and after.startswith("' ") and "'" not in text


def test_everything_is_filled_in() -> None:
    assert not re.search(r"@\w+(\.py)?@", ENTRY_SCRIPT)


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_a_shell_can_read_it(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on PATH (on Debian: apt install {shell})")
    done = subprocess.run([shell, "-n"], input=ENTRY_SCRIPT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


#: What the script does on purpose: it sources files that are named when it runs, has texts for other programs in single
#: quotes, and makes directories of which only the last is to be private.
ON_PURPOSE = "SC1090,SC2016,SC2174"


def test_shellcheck_finds_nothing() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on PATH (on Debian: apt install shellcheck)")
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--format=gcc", f"--exclude={ON_PURPOSE}", "-"],
        input=ENTRY_SCRIPT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "" and done.returncode == 0
