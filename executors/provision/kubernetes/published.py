"""The spec as an owner's annotation keeps it, without what may be secret, and how two of them differ. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from executors.spec import MiniClusterSpec, parse_spec

SPEC_ANNOTATION = "flux-operator-executors/spec"
#: Bytes, of the 256 KiB that Kubernetes allows for all annotations of an object.
_ANNOTATION_LIMIT = 100_000
#: In place of a spec that is larger.
_TOO_LARGE = "{}"
_HIDDEN = frozenset(["environment", "curveCert"])


def spec_text(spec: MiniClusterSpec) -> str:
    """Returns the annotation's text; ``{}`` for a spec that is too large."""
    text = json.dumps(_without_values(spec.public_document), sort_keys=True)
    return text if len(text) < _ANNOTATION_LIMIT else _TOO_LARGE


def published_spec(annotations: Mapping[str, str]) -> MiniClusterSpec | None:
    """Returns the spec that an owner's annotations keep, with digests for what may be secret; None: none is kept."""
    text = annotations.get(SPEC_ANNOTATION, _TOO_LARGE)
    return None if text == _TOO_LARGE else parse_spec(json.loads(text))


def spec_differences(annotations: Mapping[str, str], spec: MiniClusterSpec) -> list[str]:
    """Returns where the spec in an owner's annotations differs from this one, as sentences."""
    theirs = json.loads(annotations.get(SPEC_ANNOTATION, _TOO_LARGE))
    return [
        f"minicluster.{path}: {mine!r} is asked for, but {running!r} is running"
        for path, running, mine in _differences(theirs, _without_values(spec.public_document))
    ]


def _without_values(value: Any, hidden: bool = False) -> Any:
    """A spec with a digest in place of what may be secret: environments, and the brokers' certificate."""
    if isinstance(value, Mapping):
        return {name: _without_values(inner, hidden or name in _HIDDEN) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_values(inner, hidden) for inner in value]
    if not hidden:
        return value
    return f"sha256:{hashlib.sha256(str(value).encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _differences(theirs: Any, mine: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for name in sorted({*theirs, *mine}):
            yield from _differences(theirs.get(name), mine.get(name), f"{path}.{name}" if path else str(name))
    elif isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        for at, (one, other) in enumerate(zip(theirs, mine, strict=True)):
            yield from _differences(one, other, f"{path}[{at}]")
    elif theirs != mine:
        yield path, theirs, mine
