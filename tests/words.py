"""Plain words: ``python -m tests.words [FILE...]`` names idioms of this project's own, and what to write instead.

Part of ``make lint``. Without arguments all Python, shell and Markdown files are read. Some idioms are looked for in
documents (Markdown) only. The terms that this project uses are in docs/glossary.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
_READ = ("*.py", "*.pyi", "*.md", "*.sh")

#: Pattern -> what to write.
_WORDS = {
    r"\b(?:not )?to be had\b": "cannot be read, cannot be reached, there is none",
    r"\b[Ww]hoever\b": "the process that, the client that, no matter who",
    r"\bof ours\b": "our, this package's",
    r"\banew\b": "again",
    r"\b[Ww]ho only (?:asks|looks)\b": "a client that only asks",
    r"(?:\"\"\"|; )[Gg]ives\b": "Returns",
    r"\bannounce=": "report_progress=",
    r"\b[Mm]end(?:s|ed|ing)?\b": "fix",
    r"\bfar side\b": "receiver, server, pod",
    r"\bgone with\b": "is removed with",
    r"\blast word\b": "decides last",
    r"\bwhatever quotes\b": "even in quotes",
    r"\btakes nobody\b": "accepts no clients",
}
#: The same, for documents only.
_IN_DOCUMENTS = {
    r"\b(?:be|is) honoured\b": "is supported, is followed",
    r"\bown words\b": "message",
    r"\blast words\b": "the end of its log",
    r"\bword for word\b": "unchanged",
    r"\bof no use\b": "not used any more, useless",
    r"\b(?:comes|came|becomes|became) of it\b": "its result",
    r"\bbut for\b": "except",
    r"\bhangs? on\b": "depends on, belongs to",
    r"\bnobody has\b": "no process has, no user has",
    r"\b[Tt]hat (?:is|are) there\b": "existing, running",
    r"\b(?:is|are) not there\b": "does not exist, is missing",
    r"\bwhere it is\b": "its path, if it is",
    r"\ball the same\b": "still",
    r"\btells? of\b": "reports",
    r"\bin words\b": "as text",
    r"\bwill do\b": "works, is enough",
    r"\bcannot be told\b": "is unknown",
    r"\bmade (?:it )?again\b": "created again",
    r"\bwhatever (?:is|was|they|we|it)\b": "even if, for any",
    r"\bwhat is (?:said|asked|wanted)\b": "the message, the request, the requested",
    r"\bis said\b": "is reported, is printed",
    r"\bnot live here\b": "not be here",
    r"\bis no (?:text|term|list|id|number|path|file|pod|program|option|field|name)\b": "is not a",
    r"\bcounts? (?:more|for nothing)\b": "overrides, has no effect",
    r"\bin so many words\b": "explicitly",
}
_PATTERNS = {re.compile(pattern): cure for pattern, cure in _WORDS.items()}
_OF_DOCUMENTS = _PATTERNS | {re.compile(pattern): cure for pattern, cure in _IN_DOCUMENTS.items()}


def found(path: Path) -> Iterator[str]:
    """A line for each idiom in a file."""
    patterns = _OF_DOCUMENTS if path.suffix == ".md" else _PATTERNS
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for pattern, cure in patterns.items():
            if match := pattern.search(line):
                yield f"{path}:{number}: {match[0]!r}: write instead: {cure}"


def main(names: list[str]) -> int:
    listed = subprocess.run(["git", "ls-files", "-z", *_READ], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [Path(name) for name in names] or [ROOT / name for name in listed.stdout.split("\0") if name]
    problems = [problem for path in paths if path.resolve() != Path(__file__).resolve() for problem in found(path)]
    print("\n".join(problems) or "plain words")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
