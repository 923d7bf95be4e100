"""The spec in an owner's annotations: nothing secret is in it, and it tells what differs."""

from __future__ import annotations

from typing import Any

from executors.provision.kubernetes.published import SPEC_ANNOTATION, published_spec, spec_differences, spec_text
from executors.spec import parse_spec


def document(value: str = "sesame", **more: Any) -> dict[str, Any]:
    container = {"image": "app", "environment": {"TOKEN": value}, "ports": [80]}
    return {"size": 2, "containers": [container], "flux": {"curveCert": value, "wrap": "strace"}, **more}


def test_what_may_be_secret_is_a_digest() -> None:
    spec = parse_spec(document())
    text = spec_text(spec)
    assert "sesame" not in text and "sha256:" in text
    kept = published_spec({SPEC_ANNOTATION: text})
    assert kept is not None
    assert (kept.size, kept.flux.wrap, kept.flux.curve_cert, kept.containers[0].ports) == (2, "strace", "", (80,))


def test_where_two_specs_differ_is_said_field_by_field_and_without_a_secret() -> None:
    there = {SPEC_ANNOTATION: spec_text(parse_spec(document()))}
    assert spec_differences(there, parse_spec(document())) == []
    said = spec_differences(there, parse_spec(document("other", size=3)))
    assert len(said) == 2 and "sesame" not in " ".join(said) and "other" not in " ".join(said)
    assert "minicluster.size: 3 is asked for, but 2 is running" in said
    assert any(line.startswith("minicluster.containers[0].environment.TOKEN: 'sha256:") for line in said)


def test_a_spec_that_is_too_large_for_an_annotation_is_not_kept() -> None:
    large = parse_spec(document(services=[{"name": "data", "image": "x", "command": "a" * 100_000}]))
    assert published_spec({SPEC_ANNOTATION: spec_text(large)}) is None
    assert published_spec({}) is None
