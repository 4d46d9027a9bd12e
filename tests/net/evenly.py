"""Thirty flows of ``rr`` over one worker: ten for each of three backends.

Services whose backends have ports in common need clients, or ports, of their own for that: a
client's port that is remembered for one of them cannot go to the same backend for another, which
then is passed over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from paraglider.lab.topology import Topology

EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}


def assert_even(
    ask: Callable[..., Counter[str]], net: Topology, protocol: str, address: str, port: int
) -> None:
    """Of thirty flows that ``ask`` opens each backend has ten."""
    found = ask(net, protocol, address, port, 30)
    assert found == EVEN, found
