"""Kubeconfig files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml


def write_kubeconfig(
    path: Path, server: str, authority: Path, user: Mapping[str, str], *, namespace: str = "default"
) -> Path:
    """One cluster, one user, one context. ``user`` holds the fields that say who it is."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": str(authority)}}],
        "users": [{"name": "user", "user": dict(user)}],
        "contexts": [
            {"name": "testbed", "context": {"cluster": "testbed", "user": "user", "namespace": namespace}},
        ],
        "current-context": "testbed",
    }
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path
