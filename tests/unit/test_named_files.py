"""Files that the documents for developers name are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["CONTRIBUTING.md", "docs/architecture.md", "docs/extending.md", "docs/glossary.md", "docs/protocol.md"]
DOCUMENTS += [str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "decisions").glob("*.md")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_named_is_there(document: str) -> None:
    text = (ROOT / document).read_text()
    sources = [
        path.relative_to(ROOT).as_posix()
        for folder in ("executors", "snakemake_executor_flux", "airflow_provider_flux", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for name in _names(text):
        assert any(f"/{source}".endswith(f"/{name}") for source in sources), f"{name} is not there"


def test_what_is_looked_for_is_found() -> None:
    assert list(_names("`a/{b,c}.py` and `d.py`")) == ["a/b.py", "a/c.py", "d.py"]
    assert len(list(_names((ROOT / "docs/architecture.md").read_text()))) > 30


def _names(text: str) -> Iterator[str]:
    """Paths in backticks that end with .py, braces expanded."""
    for path in re.findall(r"`([\w/{},]+\.py)`", text):
        braces = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
        if braces is None:
            yield path
        else:
            yield from (braces[1] + inner + braces[3] for inner in braces[2].split(","))
