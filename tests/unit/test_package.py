"""The agent as it is packed."""

from __future__ import annotations

import ast
import io
import zipfile
from functools import cache
from pathlib import Path
from types import CodeType

import pytest

import executors.agent
from executors.provision.package import agent_archive

ROOT = Path(executors.agent.__file__).parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def code_of(source: str) -> CodeType:
    """What a source does, and on which lines: its code, with every docstring the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        if ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("", lineno=1, col_offset=0), lineno=1, col_offset=0)
    return compile(ast.fix_missing_locations(tree), "agent", "exec")


def parts_of(code: CodeType) -> list[tuple[object, ...]]:
    """Its own parts, and those of all code within it, without columns."""
    within = [const for const in code.co_consts if isinstance(const, CodeType)]
    plain = tuple(const for const in code.co_consts if not isinstance(const, CodeType))
    lines = tuple(line for _, _, line in code.co_lines())
    own = (code.co_name, code.co_code, plain, code.co_names, code.co_varnames, code.co_freevars, lines)
    return [own, *(part for one in within for part in parts_of(one))]


@cache
def archived() -> bytes:
    return agent_archive()


def packed(name: str) -> str:
    with zipfile.ZipFile(io.BytesIO(archived())) as archive:
        return archive.read(f"agent/{name}").decode()


@pytest.mark.parametrize("name", SOURCES)
def test_a_packed_file_does_what_its_source_does_on_the_same_lines(name: str) -> None:
    source = (ROOT / name).read_text()
    assert parts_of(code_of(packed(name))) == parts_of(code_of(source))
    assert len(packed(name).splitlines()) == len(source.splitlines())


def test_words_for_readers_are_not_packed() -> None:
    text = "".join(map(packed, SOURCES))
    assert "\n#:" not in text and '"""The' not in text


def test_all_of_the_agent_is_packed_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        assert sorted(archive.namelist()) == sorted(["__main__.py", *(f"agent/{name}" for name in SOURCES)])
