"""How an instance of a run's own starts on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flux.pilots import Opener


@pytest.mark.parametrize("level", ["", "0"])
def test_no_start_up_file_of_the_home_is_read_by_fluxs_scripts(pilots: Opener, tmp_path: Path, level: str) -> None:
    """As when a service begins a workflow, and no shell; what stands there may take long, or wait for input."""
    (tmp_path / ".bashrc").write_text(f"touch {tmp_path}/read\n")
    with pilots("start", pilot="off", variables={"HOME": str(tmp_path), "SHLVL": level}):
        pass
    assert not (tmp_path / "read").exists()
