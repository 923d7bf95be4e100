"""YAML text -> mappings, lists, texts, numbers, booleans and None, and nothing else. Pure.

The one reader of configs, wherever they are written. What YAML has and configs have no use for is refused by name and
line, since people mean something else by it: keys that are given twice or are no texts, several documents, tags.
Aliases and merge keys work, within bounds: a text of a kilobyte can name a list of a billion values. Dates and
``12:30`` are texts.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

#: Characters of a text, and of what its aliases make of it, with one for each value: more than Kubernetes stores.
MAX_SIZE = 1_000_000
#: Lists and mappings within each other.
MAX_DEPTH = 50
#: Characters of a key.
MAX_KEY = 1000

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"
#: Of PyYAML's messages, before the name: of aliases, anchors, tags and their handles.
_NAMED = re.compile(r".*?\b(alias|anchor|handle|tag)(?= ['\"])", re.DOTALL)
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200
_short.maxlevel, _short.maxlist, _short.maxdict, _short.maxtuple = 3, 8, 8, 8


class YamlTextError(ValueError):
    """What is wrong with a text, in which line, and the cure."""


def shown(value: object) -> str:
    """A value in a message: its beginning, however large it is."""
    return _short.repr(value)


def said(err: Any) -> str:
    """What PyYAML says of a text, and the cure, without names of the text's: what begins with * or & or ! may be a
    secret that somebody has not put in quotes."""
    text = str(getattr(err, "problem", None) or getattr(err, "context", None) or type(err).__name__)
    if found := _NAMED.match(text):
        return f"{found.group()}; put strings that begin with *, & or ! in quotes"
    return f"{text}; indent with spaces, not with tabs" if "'\\t'" in text else text


def read_mapping(text: str | bytes) -> dict[str, Any]:
    """The mapping that a text holds. Raises YamlTextError."""
    if len(text) > MAX_SIZE:
        raise YamlTextError(f"is larger than {MAX_SIZE} characters; is it a config?")
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as err:
            raise YamlTextError(f"is not UTF-8 text: {err.reason} at byte {err.start}") from None
    found = _Reader(text.removeprefix("\ufeff")).read()
    if not isinstance(found, dict):
        raise YamlTextError("holds no mapping; the smallest config is apiVersion and kind")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        import yaml  # here, since most runs have no file and the import costs 15 ms

        self._yaml = yaml
        self._text = text
        self._scalars = yaml.SafeLoader("")
        #: Size and height of each node; None while it is looked at.
        self._measures: dict[int, tuple[int, int] | None] = {}

    def read(self) -> object:
        yaml = self._yaml
        try:
            nodes = []
            for node in yaml.compose_all(self._text, yaml.SafeLoader):
                nodes.append(node)
                if len(nodes) > 1:
                    raise _wrong(node, "a second document begins; a config is one document, without --- between")
        except yaml.MarkedYAMLError as err:
            mark = err.problem_mark or err.context_mark
            where = f" in line {mark.line + 1}" if mark is not None else ""
            raise YamlTextError(f"is not valid YAML{where}: {said(err)}") from None
        except yaml.YAMLError as err:
            raise YamlTextError(f"is not valid YAML: {str(err).splitlines()[0]}") from None
        except RecursionError:
            raise YamlTextError(f"is nested more than {MAX_DEPTH} deep") from None
        if not nodes:
            return None
        size, _ = self._measure(nodes[0])
        if size > MAX_SIZE:
            raise YamlTextError(f"its aliases (*name) make it larger than {MAX_SIZE} characters; use fewer of them")
        return self._value(nodes[0])

    def _measure(self, node: Any) -> tuple[int, int]:
        """Size and height of a value with all that its aliases stand for."""
        if id(node) in self._measures:
            known = self._measures[id(node)]
            if known is None:
                raise _wrong(node, "an alias (*name) is inside the value that it names")
            return known
        self._measures[id(node)] = None
        size, height = 1, 0
        if isinstance(node, self._yaml.ScalarNode):
            size += len(node.value)
        else:
            is_mapping = isinstance(node, self._yaml.MappingNode)
            for one in (part for pair in node.value for part in pair) if is_mapping else node.value:
                inner, depth = self._measure(one)
                size, height = size + inner, max(height, depth + 1)
        if height > MAX_DEPTH:
            raise _wrong(node, f"it is nested more than {MAX_DEPTH} deep")
        self._measures[id(node)] = size, height
        return size, height

    def _value(self, node: Any) -> object:
        if isinstance(node, self._yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, self._yaml.SequenceNode):
            if node.tag != f"{_TAG}seq":
                raise _wrong(node, f"the tag {_tag(node)} is not known here; leave it out")
            return [self._value(one) for one in node.value]
        return self._mapping(node)

    def _mapping(self, node: Any) -> dict[str, Any]:
        if node.tag != f"{_TAG}map":
            raise _wrong(node, f"the tag {_tag(node)} is not known here; leave it out")
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            merges = key_node.tag == _MERGE
            key = "<<" if merges else self._key(key_node)
            if key in lines:
                raise _wrong(key_node, f"{shown(key)} is given twice, in line {lines[key]} too")
            lines[key] = key_node.start_mark.line + 1
            if merges:
                merged = self._merged(value_node)
            else:
                own[key] = self._value(value_node)
        return {**merged, **own}

    def _key(self, node: Any) -> str:
        key = self._scalar(node) if isinstance(node, self._yaml.ScalarNode) else None
        if isinstance(key, str) and len(key) <= MAX_KEY:
            return key
        if isinstance(key, str):
            raise _wrong(node, f"a key is longer than {MAX_KEY} characters: {shown(key)}")
        what = "a list or a mapping" if not isinstance(node, self._yaml.ScalarNode) else shown(node.value)
        raise _wrong(node, f"the key {what} is not a string; put it in quotes")

    def _merged(self, node: Any) -> dict[str, Any]:
        """What ``<<:`` brings: of a mapping, or of a list of them, whose first wins."""
        several = isinstance(node, self._yaml.SequenceNode)
        found: dict[str, Any] = {}
        for one in node.value if several else [node]:
            if not isinstance(one, self._yaml.MappingNode):
                raise _wrong(one, "<<: takes a mapping, or a list of mappings")
            found = {**self._mapping(one), **found}
        return found

    def _scalar(self, node: Any) -> object:
        kind = node.tag.removeprefix(_TAG)
        # Without a tag these are guesses: 12:30 is 750 in YAML 1.1, and nobody means that.
        if kind in ("str", "timestamp", "value", "merge") or (kind in ("int", "float") and ":" in node.value):
            return str(node.value)
        if kind not in ("int", "float", "bool", "null"):
            # Another than YAML's own may be the beginning of a text, and that a secret.
            tag = f"the tag {_tag(node)}" if node.tag.startswith(_TAG) else "a tag (!name)"
            raise _wrong(node, f"{tag} is not known here; leave it out, or put the text in quotes")
        try:
            return self._scalars.construct_object(node)
        except (ValueError, KeyError, IndexError) as err:  # the last is of one without digits
            raise _wrong(node, f"{shown(node.value)} is no {kind}: {err}") from None


def _tag(node: Any) -> str:
    return str(node.tag).replace(_TAG, "!!")


def _wrong(node: Any, what: str) -> YamlTextError:
    return YamlTextError(f"in line {node.start_mark.line + 1}: {what}")
