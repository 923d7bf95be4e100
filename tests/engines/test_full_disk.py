"""What a full disk looks like to a user: a clear message, no hanging, nothing half done that counts as done."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engines.conftest import run_snakemake


@pytest.fixture
def small(tmp_path: Path, need: Callable[[str], None]) -> Iterator[Path]:
    """A file system of 2 MB."""
    need("root")
    directory = tmp_path / "small"
    directory.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(directory)], check=False)
    if done.returncode:
        pytest.skip(
            "a small file system cannot be mounted here (no CAP_SYS_ADMIN); run the tests in a privileged place"
        )
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(directory: Path) -> None:
    with (directory / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(4096)) == 4096:
            pass


TEXT = """
rule all:
    input: config["at"] + "/big", "fine"
rule big:
    output: config["at"] + "/big"
    shell: "head -c 20000000 /dev/zero > {output}"
rule fine:
    output: "fine"
    shell: "touch {output}"
"""


def test_a_job_that_fills_a_disk_fails_and_leaves_nothing(engine: str, small: Path, tmp_path: Path) -> None:
    run = run_snakemake(tmp_path / "work", TEXT, "--keep-going", "--config", f"at={small}", engine=engine)
    assert run.returncode == 1
    assert "exit code 1" in run.output and "No space left on device" in run.output
    assert not (small / "big").exists() and (run.directory / "fine").exists()


def test_what_a_full_working_directory_left_half_done_is_made_anew(engine: str, small: Path, tmp_path: Path) -> None:
    # Snakemake itself cannot write its records then, and ends; what it could not tidy up has to count as incomplete.
    arguments = ("--config", "at=.", "--flux-operator-logdir", str(tmp_path / "logs"))
    run = run_snakemake(small, TEXT, "--keep-going", *arguments, engine=engine)
    assert run.returncode == 1 and "No space left on device" in run.output
    subprocess.run(["mount", "-o", "remount,size=60m", str(small)], check=True)
    run = run_snakemake(small, "", "--rerun-incomplete", *arguments, engine=engine)
    assert run.returncode == 0, run.output
    assert (small / "big").stat().st_size == 20_000_000


def test_records_that_cannot_be_written_are_told_and_fail_no_job(engine: str, small: Path, tmp_path: Path) -> None:
    """Its log is written by the job itself, and is empty here."""
    text = "rule all:\n    input: 'a', 'b'\nrule one:\n    output: '{x,[ab]}'\n    shell: 'touch {output}'\n"
    logs = small / "logs"
    logs.mkdir()
    fill(small)
    run = run_snakemake(tmp_path / "work", text, "--flux-operator-logdir", str(logs), engine=engine)
    assert run.returncode == 0, run.output
    assert (run.directory / "a").exists() and (run.directory / "b").exists()
    assert run.output.count("efficiency.tsv is not complete, since it cannot be written: [Errno 28]") == 1


def test_a_full_state_directory_is_an_error_and_not_a_wait(engine: str, small: Path, tmp_path: Path) -> None:
    fill(small)
    # Short enough to hold sockets, as a runtime directory has to be.
    link = Path("/tmp") / f"fxo-small-{engine}"
    link.symlink_to(small)
    try:
        place = {"FLUX_OPERATOR_RUNTIME_DIR": str(link)}
        run = run_snakemake(tmp_path / "work", TEXT, "--config", "at=.", engine=engine, **place)
    finally:
        link.unlink()
    assert run.returncode == 1
    assert "flux-operator: no instance could be started in" in run.output and "No space left" in run.output
    assert sorted(path.name for path in small.rglob("*")) == ["filler", "fluxop", "lock"]
