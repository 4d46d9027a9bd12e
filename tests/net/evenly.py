"""Flows whose shares are exact: what the client's kernel sends twice is not held against rr.

A worker that is kept waiting may find a SYN and its retransmission in its queues, and the second
after its connection has ended: it opens a flow, to which the client answers with RST. That is a
turn of rr without an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import Topology

#: of thirty flows
EVEN = {"backend1": 10, "backend2": 10, "backend3": 10}
#: rounds, if segments are sent again in each
ROUNDS = 10


def retransmitted(namespace: Namespace) -> int:
    """How many TCP segments ``namespace`` has sent again."""
    text = namespace.run(["cat", "/proc/net/snmp"]).stdout
    names, values = (line.split() for line in re.findall("^Tcp: .*$", text, re.MULTILINE))
    return int(dict(zip(names, values, strict=True))["RetransSegs"])


def assert_even(
    ask: Callable[..., Counter[str]], net: Topology, protocol: str, address: str, port: int
) -> None:
    """Of thirty flows that ``ask`` opens each backend has ten."""
    answers: Counter[str] = Counter()
    for _ in range(ROUNDS):
        before = retransmitted(net.client)
        answers = ask(net, protocol, address, port, 30)
        if answers == EVEN or retransmitted(net.client) == before:
            break
    assert answers == EVEN
