"""containerd with runc, in a bed's namespaces; and its store with the images in it, unpacked once and then shared."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.cluster.testbed.binaries import binaries
from tests.cluster.testbed.cache import made_once, output_of
from tests.cluster.testbed.image import Image
from tests.cluster.testbed.missing import Missing, need_commands
from tests.cluster.testbed.oci import write_archive
from tests.cluster.testbed.place import Place
from tests.cluster.testbed.processes import Program

SOCKET = "/run/containerd/containerd.sock"
_CNI_PLUGINS = Path("/usr/lib/cni")
_PAUSE = "localhost/pause:1"
_CAP_SYS_RESOURCE = 24
_SNAPSHOTS = Path("io.containerd.snapshotter.v1.overlayfs", "snapshots")
_BLOBS = Path("io.containerd.content.v1.content", "blobs", "sha256")


class Runtime:
    """containerd in ``place``, with its store in ``store``."""

    def __init__(self, place: Place, store: Path) -> None:
        self._place = place
        self._store = store
        self.containerd = Program(place, "containerd", ["containerd", f"--config={self._config()}"])

    def start(self) -> None:
        self.containerd.start()
        self.containerd.wait_for("answering", self._answers)

    def load_image(self, archive: Path) -> None:
        """Makes the image of an OCI or Docker archive known to the node."""
        self._place.run("ctr", f"--address={SOCKET}", "--namespace=k8s.io", "images", "import", str(archive))

    def share(self, prepared: Path) -> None:
        """Fills the store from a prepared one, whose large parts, which containerd only reads, are mounted in here."""
        large = [
            *prepared.glob(f"{_SNAPSHOTS}/*/fs"),
            *(b for b in prepared.glob(f"{_BLOBS}/*") if b.stat().st_size > 2**20),
        ]
        shutil.copytree(
            prepared, self._store, ignore=lambda directory, names: [n for n in names if Path(directory, n) in large]
        )
        for path in large:
            target = self._store / path.relative_to(prepared)
            if path.is_dir():
                target.mkdir()
            else:
                target.touch()
            # In the bed's own mounts: a process that removes its directory from outside does not see what is in them.
            self._place.run("mount", "--bind", "-o", "ro", str(path), str(target))

    def _answers(self) -> bool:
        try:
            self._place.run("ctr", f"--address={SOCKET}", "version")
        except RuntimeError:
            return False
        return True

    def _config(self) -> Path:
        config = self._place.directory / "containerd.toml"
        config.write_text(
            f"""version = 2
root = "{self._store}"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{_PAUSE}"
  # Where we may not lower the value, runc must not be asked to.
  restrict_oom_score_adj = {"false" if _may_lower_oom_score() else "true"}
  # In the bed's own mounts, and removed with them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PLUGINS}"
    conf_dir = "{self._network_config()}"
"""
        )
        return config

    def _network_config(self) -> Path:
        """Pods get a network card at the bed's bridge, and an address above those that the bed has itself."""
        ipam = {
            "type": "host-local",
            "ranges": [
                [
                    {
                        "subnet": str(self._place.network),
                        "rangeStart": self._place.first_pod,
                        "gateway": self._place.address,
                    }
                ]
            ],
            "routes": [{"dst": f"{self._place.family.anywhere}/0"}],
        }
        bridge = {"type": "bridge", "bridge": "pods", "isGateway": False, "ipMasq": False, "ipam": ipam}
        directory = self._place.directory / "cni"
        directory.mkdir()
        plugins = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
        (directory / "10-pods.conflist").write_text(json.dumps(plugins))
        return directory


def need_runtime() -> None:
    """Raises Missing where containerd, runc or the CNI plugins are."""
    need_commands("containerd", "ctr", "runc")
    if not (_CNI_PLUGINS / "bridge").exists():
        raise Missing(f"no {_CNI_PLUGINS}/bridge; install it (on Debian: apt install containernetworking-plugins)")


@cache
def prepared_store(image: Image) -> Path:
    """A store of containerd with the image and the pods' own one in it, unpacked; made once."""
    version = output_of(["containerd", "--version"], what="containerd --version")
    digest = hashlib.sha256(f"{image.name} {binaries()} {version}".encode()).hexdigest()[:12]
    return made_once("store", digest, lambda part: _prepare(part, image))


def _prepare(part: Path, image: Image) -> None:
    place = Place(isolated=True)
    try:
        runtime = Runtime(place, part)
        runtime.start()
        with tempfile.TemporaryDirectory() as directory:
            layer, archive = Path(directory, "layer.tar"), Path(directory, "image.tar")
            output_of(["tar", "-C", str(binaries()), "-cf", str(layer), "pause"], what="packing the pause image")
            write_archive(_PAUSE, layer, archive, entrypoint=["/pause"])
            runtime.load_image(archive)
        runtime.load_image(image.archive)
        # Not killed: it writes its databases first.
        runtime.containerd.stop()
    finally:
        place.close()


def _may_lower_oom_score() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _CAP_SYS_RESOURCE & 1)
