"""How the instances of our runs take jobs in (flux-config-ingest(5)). Pure.

Nextflow submits one task after the other, and Flux would wait 10 ms with each for others to store with it.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

from executors import RunConfig

#: Of an instance that is made for the run.
TEXT = "[ingest]\nbatch-count = 1\n"


def one_by_one(config: RunConfig) -> RunConfig:
    """With that for a MiniCluster of our own brokers, unless its brokerConfig has a word on it."""
    spec = config.minicluster
    if spec is None or config.run.provisioner != "direct":
        return config
    given = spec.flux.broker_config
    try:
        said = "ingest" in tomllib.loads(given)
    except tomllib.TOMLDecodeError:
        return config  # the process that starts it says so, with the field's path
    if said:
        return config
    flux = replace(spec.flux, broker_config=f"{given}\n{TEXT}" if given else TEXT)
    return replace(config, minicluster=replace(spec, flux=flux))
