"""What deploy/Containerfile says makes a program that works, of nothing but what it copies. Needs a package index."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from executors.render.entry import ENTRY_SCRIPT

ROOT = Path(__file__).parents[2]


def instructions(name: str) -> list[str]:
    """The words behind each instruction of that name."""
    text = (ROOT / "deploy" / "Containerfile").read_text()
    return [line.removeprefix(name).strip() for line in text.splitlines() if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of its RUN, with other paths, by this Python."""
    root = tmp_path_factory.mktemp("image")
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in kept:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (root / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, root / "source" / name)
    [command] = instructions("RUN")
    command = re.sub(r"(?<![\w/])/(source|venv)\b", rf"{shlex.quote(str(root))}/\1", command)
    command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr and "Failed to establish a new connection" in done.stderr:
        pytest.skip("no package index can be reached; with one, pip installs what the image has")
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "venv"


def test_the_images_program_has_all_that_it_needs(venv: Path, tmp_path: Path) -> None:
    [entrypoint] = instructions("ENTRYPOINT")
    [program] = yaml.safe_load(entrypoint)

    def output_of(*words: str) -> str:
        argv = [str(venv / "bin" / program), *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"HOME": str(tmp_path)}, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert yaml.safe_load(output_of("crd"))["kind"] == "CustomResourceDefinition"
    published = (ROOT / "deploy" / "flux-operator.yaml").read_text()
    assert list(yaml.safe_load_all(output_of("manifests"))) == list(yaml.safe_load_all(published))
    [words] = instructions("CMD")
    assert "Run the controller" in output_of(*yaml.safe_load(words), "--help")


def test_the_image_renders_what_pods_need_from_files_of_its_own(venv: Path, tmp_path: Path) -> None:
    code = (
        "import executors.render.entry as entry\n"
        "from executors.controller.running import Process\n"
        "print(entry.__file__, len(entry.ENTRY_SCRIPT))\n"
    )
    argv = [str(venv / "bin" / "python"), "-I", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path, size = done.stdout.split()
    assert Path(path).is_relative_to(venv)
    assert int(size) == len(ENTRY_SCRIPT)
