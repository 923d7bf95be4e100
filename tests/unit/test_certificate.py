"""The brokers' certificate. (That Flux takes it is tested with real brokers.)"""

from __future__ import annotations

import re
import subprocess
import sys

from executors.provision.kubernetes.certificate import make_certificate

_KEY = r'"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"'


def test_a_certificate_is_a_key_pair_in_zpl_and_never_the_same_twice() -> None:
    text = make_certificate("run")
    found = re.fullmatch(
        rf'metadata\n    name = "run"\ncurve\n    public-key = ({_KEY})\n    secret-key = ({_KEY})\n', text
    )
    assert found is not None and found.group(1) != found.group(2)
    assert make_certificate("run") != text


def test_who_makes_no_minicluster_does_not_import_its_library() -> None:
    program = "import sys, executors, executors.provision.kubernetes.certificate; sys.exit('zmq' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
