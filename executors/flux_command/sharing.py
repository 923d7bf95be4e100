"""Whether jobs elsewhere can work in a directory of this machine."""

from __future__ import annotations

import os

from executors import Session


def shared_problem(session: Session, directory: str) -> str | None:
    """Why jobs elsewhere cannot work in a directory of this machine; None where they can. Raises ExecutorsError."""
    if session.path_kinds([directory]) != ["directory"]:
        return (
            f"the work directory {directory} is not in the pods; mount the volume that holds it at the same path "
            "(minicluster.containers[0].volumes), or use a directory that is in the pods: -w DIR"
        )
    for problem in session.unwritable([directory]):
        owner = os.stat(directory)
        return (
            f"the work directory {problem}; run the pods as its owner (minicluster.pod.securityContext: "
            f"{{runAsUser: {owner.st_uid}, runAsGroup: {owner.st_gid}}}), or let that user write there"
        )
    return None
