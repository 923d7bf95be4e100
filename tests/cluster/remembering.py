"""A MiniCluster in a cluster whose DNS remembers that a name did not exist yet."""

from __future__ import annotations

import re
import sys

from executors.names import RunId, run_name
from tests.cluster.runs import Runs, output_of, spec

#: What a name server says to both questions for a name's addresses.
_ASK = """import sys
from executors.render.inside.fresh_name import ADDRESSES, ask
print([ask(sys.argv[1:2], sys.argv[2], kind)[0] for kind in ADDRESSES])"""


def joins_where_dns_remembers(runs: Runs) -> None:
    """As that of many clusters does for half a minute, if it was asked before the kubelet had told the address."""
    server = runs.bed.place.family.caching_dns
    dns = {"nameservers": [server], "searches": [f"{runs.namespace}.svc.cluster.local", "svc.cluster.local"]}
    patch = {"spec": {"dnsPolicy": "None", "dnsConfig": {**dns, "options": [{"name": "ndots", "value": "5"}]}}}
    whole = f"{run_name(RunId('test', 'remembered'))}-0.remembered.{runs.namespace}.svc.cluster.local"
    said = runs.bed.place.run(sys.executable, "-c", _ASK, server, whole)
    assert said == "[3, 3]\n", "there is no such name yet"
    minicluster = spec(runs.image, size=2, network={"headlessName": "remembered"})
    session = runs.open(minicluster, run_id="remembered", podPatch=patch)
    session.wait_for_brokers()
    parent = output_of(session, "flux", "exec", "-r", "1", "flux", "getattr", "tbon.parent-endpoint")
    assert re.fullmatch(r"tcp://(\[[0-9a-f:]+\]|[0-9.]+):8050\n", parent)
