"""Whose pods are: the client's own user's, where they share its files."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from executors.render import PodUser
from executors.render.volumes import mount_path
from executors.spec import MiniClusterSpec

#: The greatest user or group id that Kubernetes takes.
_LARGEST = 2**31 - 1


def own_user() -> PodUser | None:
    """Returns this process' user; None for root, whom pods are not to be by default."""
    uid, gid = os.getuid(), os.getgid()
    if not _is_usable(uid):
        return None
    group = gid if _is_usable(gid) else uid
    return PodUser(uid, group, tuple(sorted({one for one in os.getgroups() if _is_usable(one) and one != group})))


def _is_usable(number: int) -> bool:
    return 0 < number <= _LARGEST


def shares_files(spec: MiniClusterSpec, directory: str) -> bool:
    """Returns whether the brokers' container may write to ``directory`` in a volume, at the same path."""
    here = PurePosixPath(directory)
    return any(
        here.is_relative_to(mount_path(volume))
        for volume in spec.flux_container.volumes
        if (volume.claim_name or volume.host_path or volume.csi_driver) and not volume.read_only and mount_path(volume)
    )


def user_of(spec: MiniClusterSpec) -> PodUser | None:
    """Returns the user of pods whose spec names none; None: the default user."""
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed: nothing of it is shared
        return None
    return own_user() if shares_files(spec, here) else None
