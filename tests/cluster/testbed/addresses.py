"""The addresses of beds with a network of their own: of IPv4, or of IPv6 alone."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Nothing translates addresses in a bed: its network has those of the cluster's own services itself."""

    services: str
    #: The cluster's address for its own API server.
    api_server: str
    #: A second DNS of the bed, which remembers.
    caching_dns: str
    #: All that a process can listen at.
    anywhere: str
    reverse_zone: str
    #: Of the bed of a number; the third part is the pods'.
    _network: str
    _first_pod: str

    def network(self, number: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        return ipaddress.ip_network(self._network.format(200 + number))

    def first_pod(self, number: int) -> str:
        """Above those that the bed has itself."""
        return self._first_pod.format(200 + number)


IPV4 = Family("10.96.0.0/16", "10.96.0.1", "10.96.0.11", "0.0.0.0", "in-addr.arpa", "10.{}.0.0/16", "10.{}.1.0")
IPV6 = Family(
    "fd00:96::/112", "fd00:96::1", "fd00:96::11", "::", "ip6.arpa", "fd00:{}::/64", "fd00:{}::1:0"
)  # fmt: skip


def host(address: str) -> str:
    """As a part of a URL."""
    return f"[{address}]" if ":" in address else address
