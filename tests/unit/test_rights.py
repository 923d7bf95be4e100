"""What a client needs to be allowed, by the spec."""

from __future__ import annotations

import pytest

from executors.provision.kubernetes.rights import RIGHTS, Right, rights_for
from executors.spec import default_document, parse_spec

SERVICE = {"image": "registry:2", "name": "registry"}


@pytest.mark.parametrize(("mode", "more"), [("direct", (Right("", "pods", ("create",)),)), ("operator", ())])
def test_direct_mode_makes_the_pod_of_services_itself(mode: str, more: tuple[Right, ...]) -> None:
    plain, serving = default_document(), {**default_document(), "services": [SERVICE]}
    assert rights_for(mode, parse_spec(plain)) == RIGHTS[mode]
    assert rights_for(mode, parse_spec(serving)) == (*RIGHTS[mode], *more)
