"""A config of a kilobyte cannot fill the memory of a process that reads it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HEAD = "apiVersion: flux-operator-executors/v1\nkind: FluxRun\n"
LAUGHS = HEAD + "x0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n"
for _level in range(1, 9):
    LAUGHS += f"x{_level}: &a{_level} [{', '.join([f'*a{_level - 1}'] * 9)}]\n"
MERGES = HEAD + "x0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(9)) + "}\n"
for _level in range(1, 9):
    MERGES += f"x{_level}: &a{_level} {{<<: [{', '.join([f'*a{_level - 1}'] * 9)}]}}\n"


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "run: {namespace: *a8}\n",
        LAUGHS + "run:\n  ? *a8\n  : 1\n",
        LAUGHS + "minicluster: *a8\n",
        LAUGHS + "*a8 : 1\n",
        MERGES + "run: *a8\n",
        HEAD + f"x: &x {'y' * 5000}\nrun: {{env: [{', '.join(['*x'] * 5000)}]}}\n",
        HEAD + "".join(f"x{n}: &x{n} {'[' * 40}{f'*x{n - 1}' if n else ''}{']' * 40}\n" for n in range(200)),
    ],
    ids=["value", "key", "minicluster", "top key", "merge", "text", "depth"],
)
def test_aliases_cannot_fill_the_memory(text: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    code = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        from executors import ConfigError, load_config
        from executors.config import config_of_text
        for read in (load_config, lambda path: config_of_text(open(path).read())):
            try:
                read(sys.argv[1])
            except ConfigError as err:
                print(len(str(err)), err)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "run.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    told = done.stdout.splitlines()
    assert len(told) == 2 and all(int(line.split()[0]) < 1000 for line in told)
