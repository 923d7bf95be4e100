"""Masks values in a job's output, in the forms in which programs write them. Pure.

What is looked for, in lines of bytes as the job wrote them:

- each line of a value by itself, since a log is made of lines;
- any mixture of escapes in it: of URLs, JSON, Python, shells, HTML;
- the whole value in base64 (wherever it begins in what was encoded) and in hexadecimal digits;
- pieces of these of eight bytes and more at the ends of a line: ``base64`` and ``fold`` wrap what they write.

Not found: what a program has computed of a value otherwise (compressed, encrypted, reversed), and shorter pieces.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator
from functools import cached_property

MASK = "***"
_MASK = MASK.encode()
#: Shorter values are masked where they stand as a word only: they are parts of others. Airflow's own limit.
_SHORT = 5
#: Shorter ones are not masked: ``1`` is in every second line, and keeps no secret.
_SHORTEST = 3
#: Bytes of a piece of a value that count at the end of a line.
_PIECE = 8
_WORD = b"[0-9A-Za-z_]"
_BASE64 = b"[A-Za-z0-9+/_-]"
_NAMED = {"\t": "t", "\n": "n", "\r": "r", "\b": "b", "\f": "f", "\v": "v", "\a": "a"}


class Masker:
    """Masks these values. ``secrets``: texts, with surrogates for bytes that are no UTF-8."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = tuple(dict.fromkeys(secret for secret in secrets if len(secret.strip()) >= _SHORTEST))
        #: Forms of which pieces count; see `_edges`.
        self._forms: dict[bytes, None] = {}
        patterns: dict[bytes, None] = {}
        encodings: set[bytes] = set()
        #: The longest match in bytes.
        self._longest = 0
        for secret in self.secrets:
            for line in filter(None, (line.strip() for line in re.split(r"[\r\n]+", secret))):
                pattern, longest = _escaped(line)
                if len(line) < _SHORT:
                    if line != secret.strip():
                        continue  # "}" of a value of several lines
                    pattern = b"(?<!%s)%s(?!%s)" % (_WORD, pattern, _WORD)
                else:
                    self._forms[_bytes(line)] = None
                patterns[pattern] = None
                self._longest = max(self._longest, longest)
            # Programs strip what they read from a file before they encode it, or do not.
            for whole in {secret, secret.strip()}:
                for literal, pattern in _encoded(_bytes(whole)):
                    self._forms[literal] = None
                    patterns[pattern] = None
                    encodings.add(pattern)
                    self._longest = max(self._longest, len(literal) + 4)
        # The longest first, so that a value is not left in part where it begins with another one.
        ordered = sorted(patterns, key=len, reverse=True)
        self._pattern = re.compile(b"|".join(ordered)) if ordered else None
        self._encodings = [re.compile(pattern) for pattern in ordered if pattern in encodings]

    def line(self, line: bytes) -> bytes:
        """A line, or a piece of one, without line breaks."""
        if self._pattern is None:
            return line
        masked, at = b"", 0
        for first, last in self._places(line):
            masked += line[at:first] + _MASK
            at = last
        masked += line[at:]
        begin, end = self._edges(masked)
        if begin + end >= len(masked) and begin + end:
            return _MASK
        return (_MASK if begin else b"") + masked[begin : len(masked) - end] + (_MASK if end else b"")

    def text(self, text: str) -> str:
        """The same for a text of any number of lines."""
        lines = _bytes(text).split(b"\n")
        return b"\n".join(map(self.line, lines)).decode("utf-8", "surrogateescape")

    def literals(self) -> Iterator[str]:
        """Values and the forms of them that are plain texts, for Airflow's own masking of everything else."""
        yield from self.secrets
        for form in self._forms:
            yield form.decode("utf-8", "surrogateescape")

    def cut(self, piece: bytes, most: int) -> int:
        """Where to cut a long line, of which ``piece`` is what there is: nowhere within a value, and before what may be
        the beginning of one. The whole piece where nothing is masked, else less than ``most`` bytes.
        """
        if self._pattern is None:
            return len(piece)
        at = max(most // 2, most - self._longest)
        for first, last in self._places(piece):
            if first < at < last:
                return first or last
        return at

    def _places(self, line: bytes) -> list[tuple[int, int]]:
        """Where values are: from, to, in order. Of encodings that overlap each counts to its end: a value that repeats
        itself looks, in base64, like one that has begun earlier, and what is behind that would be left."""
        if self._pattern is None:
            return []
        found = [match.span() for match in self._pattern.finditer(line)]
        for pattern in self._encodings if found else ():
            match = pattern.search(line)
            while match is not None:
                found.append(match.span())
                match = pattern.search(line, match.start() + 1)
        places: list[tuple[int, int]] = []
        for first, last in sorted(found):
            if places and first < places[-1][1]:
                places[-1] = places[-1][0], max(last, places[-1][1])
            else:
                places.append((first, last))
        return places

    def _edges(self, line: bytes) -> tuple[int, int]:
        """Bytes at the beginning and at the end of a line that are pieces of a value."""
        text = line.strip()
        if len(text) < _PIECE:
            return 0, 0
        indent = len(line) - len(line.lstrip())
        after = len(line) - len(line.rstrip())
        begin = end = 0
        places = self._grams.get(text[:_PIECE], ())
        if places and any(text in form for form in self._forms):
            return len(line), 0
        for form, at in places:
            rest = form[at:]
            if text.startswith(rest):
                begin = max(begin, indent + len(rest))
        for form, at in self._grams.get(text[-_PIECE:], ()):
            rest = form[: at + _PIECE]
            if text.endswith(rest):
                end = max(end, after + len(rest))
        return begin, end

    @cached_property
    def _grams(self) -> dict[bytes, list[tuple[bytes, int]]]:
        """Every piece of `_PIECE` bytes -> the forms that hold it, and where."""
        found: dict[bytes, list[tuple[bytes, int]]] = {}
        for form in self._forms:
            for at in range(len(form) - _PIECE + 1):
                places = found.setdefault(form[at : at + _PIECE], [])
                if len(places) < _PIECE:  # of "aaaa..." it has one place after the other
                    places.append((form, at))
        return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape" if _only_bytes(text) else "surrogatepass")


def _only_bytes(text: str) -> bool:
    """Whether its surrogates, if any, stand for bytes."""
    return all(not "\ud800" <= char <= "\udfff" or "\udc80" <= char <= "\udcff" for char in text)


def _escaped(text: str) -> tuple[bytes, int]:
    """A pattern of any mixture of escapes of a text, and the most bytes that it matches."""
    pattern, longest = b"", 0
    after_run = False
    for part in re.findall(r"""[0-9A-Za-z]+|[\\'"]+|.""", text, re.DOTALL):
        if part.isascii() and part.isalnum():
            pattern += part.encode()
            longest += len(part)
            after_run = False
        elif "\\" in part or (len(part) > 1 and "'" in part):
            most = 7 * len(part) + 4  # of one: '\\\\'', and what escapes the character behind
            pattern += b"(?:%s){%d,%d}" % (_mark(part), len(part), most)
            longest += 5 * most
            after_run = True
        else:
            for char in part:
                ways = list(_ways(char, after_run))
                pattern += b"(?:" + b"|".join(way for way, _ in ways) + b")"
                longest += max(length for _, length in ways)
                after_run = False
    return pattern, longest


def _mark(run: str) -> bytes:
    r"""One piece of a run of backslashes and quotes, however they are escaped.

    By ``'\''`` and ``\"`` escapes are made of what is escaped. If each character of the run were looked for by itself,
    there would be many ways to share a text among them, and all were tried. Of such pieces there is one way.
    """
    chars = {"\\", *run, *('"' if "'" in run else "")}
    ways = []
    for char in sorted(chars):
        code = ord(char)
        ways.append(re.escape(char).encode())
        ways.append(rb"%%(?:25)?(?i:%02x)" % code)
        ways.append(rb"(?<=\\)(?:x(?i:%02x)|%03o|u(?i:%04x))" % (code, code, code))
        ways.append(rb"&#(?:0*%d|[xX]0*(?i:%x));" % (code, code))
        if html.escape(char) != char:
            ways.append(re.escape(html.escape(char).encode()))
    return b"|".join(ways)


def _ways(char: str, after_run: bool = False) -> Iterator[tuple[bytes, int]]:
    """How a character is written: patterns, and the most bytes that each matches. ``after_run``: its backslashes are
    taken by the run before it."""
    data = _bytes(char)
    maybe, escape = (b"", rb"(?<=\\)") if after_run else (rb"\\{0,4}", rb"\\{1,4}")
    yield maybe + re.escape(data), 4 + len(data)
    if char == " ":
        yield rb"\+", 1
    if char == "'":
        yield rb"""'\\''|'"'"'""", 5
    if char in _NAMED:
        yield escape + _NAMED[char].encode(), 5
    yield b"".join(b"%%(?:25)?(?i:%02x)" % byte for byte in data), 5 * len(data)
    yield escape + rb"\\{1,4}".join(b"x(?i:%02x)" % byte for byte in data), 7 * len(data)
    yield escape + rb"\\{1,4}".join(b"%03o" % byte for byte in data), 7 * len(data)
    if len(data) > 1 and ord(char) < 256:
        yield escape + rb"x(?i:%02x)" % ord(char), 7
    units = char.encode("utf-16-be", "surrogatepass")
    codes = (b"u(?i:%s)" % units[i : i + 2].hex().encode() for i in range(0, len(units), 2))
    yield escape + rb"\\{1,4}".join(codes), 20
    if len(units) > 2:
        yield escape + rb"U(?i:%08x)" % ord(char), 14
    yield rb"&#(?:0*%d|[xX]0*(?i:%x));" % (ord(char), ord(char)), 14
    if html.escape(char) != char:
        yield re.escape(html.escape(char).encode()), 6


def _encoded(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Encodings of a whole value: the literal bytes of each, and a pattern of it."""
    if len(data) < _SHORT:
        return
    digits = data.hex().encode()
    yield digits, b"(?i:%s)" % digits
    for before in range(3):  # bytes in front of it, of those that are encoded together
        # Characters that follow from the value alone; those at their ends follow from their neighbours too.
        first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            literal = encode(bytes(before) + data)[first:last]
            around = b"%s?" % _BASE64 if before else b""
            # Padding, or a character that the end of the value is part of.
            rest = b"(?:%s?={0,2})" % _BASE64 if (before + len(data)) % 3 else b""
            yield literal, around + re.escape(literal) + rest
