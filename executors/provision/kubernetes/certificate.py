"""The brokers' CURVE certificate, in the form (ZPL, ZeroMQ RFC 4) that Flux reads and ``flux keygen`` writes.

pyzmq makes the key pair: its wheel brings libzmq with curve support, 3 MB in all, where the alternative (cryptography)
brings OpenSSL, 17 MB; both are imported in 20 ms, and only when a MiniCluster is created.
"""

from __future__ import annotations

import json

from executors.errors import ProvisionError


def make_certificate(name: str) -> str:
    """A new secret certificate; ``name`` is what brokers call each other in their logs.

    Raises ProvisionError where the installed pyzmq was built without curve support.
    """
    import zmq  # see above

    if not zmq.has("curve"):
        raise ProvisionError(
            "pyzmq was built here without CURVE support; install its wheel: pip install --only-binary :all: pyzmq"
        )
    public, secret = zmq.curve_keypair()
    # ZPL knows no escapes in quoted strings; the Z85 alphabet of keys has neither quotes nor backslashes.
    return (
        "metadata\n"
        f"    name = {json.dumps(name)}\n"
        "curve\n"
        f'    public-key = "{public.decode("ascii")}"\n'
        f'    secret-key = "{secret.decode("ascii")}"\n'
    )
