"""Images without Flux: it comes from a flux-view image.

A real view is needed, whose Flux was built for its place there: FLUXOP_TEST_VIEW is the path of a Docker archive with
such an image, ``localhost/flux-view:1``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.runs import Runs, output_of, runs_on
from tests.cluster.testbed.cluster import Cluster
from tests.conftest import missing

IMAGE = "localhost/flux-view:1"
_CURE = (
    "no flux-view image is given; save one, as by `skopeo copy docker://NAME docker-archive:view.tar:"
    f"{IMAGE}`, and set FLUXOP_TEST_VIEW to its path"
)


@pytest.fixture(params=["direct", "operator"])
def viewed(request: pytest.FixtureRequest, cluster: Cluster, namespace: str, tmp_path: Path) -> Iterator[Runs]:
    if cluster.view is None:
        missing("flux-view", _CURE)
    cluster.load_image(cluster.view)
    if request.param == "operator":
        request.getfixturevalue("operator")
        # Upstream's pods run as the image's user says.
        cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
    found = runs_on(cluster, namespace, tmp_path)
    found.provisioner = request.param
    yield found
    found.close()


def test_flux_comes_by_the_view(viewed: Runs) -> None:
    # That image's own PATH has no Flux, so it can stand for one without.
    minicluster = {"size": 2, "flux": {"container": {"image": IMAGE}}, "containers": [{"image": IMAGE}]}
    session = viewed.open(minicluster)
    found = output_of(session, "sh", "-c", "command -v flux; echo $FLUX_TASK_RANK", nodes=2, tasks=2)
    assert sorted(found.split()) == ["/mnt/flux/view/bin/flux"] * 2 + ["0", "1"]
    secret = output_of(session, "sh", "-c", 'printf %s "$TOKEN" | wc -c', secret_env={"TOKEN": "abc"})
    assert secret.strip() == "3"
    session.close()
    viewed.wait_nothing_left()
