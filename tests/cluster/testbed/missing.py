"""What the machine lacks."""

from __future__ import annotations

import shutil


class Missing(Exception):
    """A test bed cannot be had on this machine; the text says what is missing and how to get it."""


def need_commands(*names: str) -> None:
    """Raises Missing with every command that is not on PATH, and its Debian package."""
    absent = [name for name in names if shutil.which(name) is None]
    if absent:
        packages = " ".join(dict.fromkeys(_PACKAGES.get(name, name) for name in absent))
        raise Missing(f"not on PATH: {', '.join(absent)}; install them (on Debian: apt install {packages})")


_PACKAGES = {
    "etcd": "etcd-server",
    "ctr": "containerd",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "go": "golang-go, 1.24 or newer",
}
