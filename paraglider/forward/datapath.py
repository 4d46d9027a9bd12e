"""The interface of a method's packet path in a worker, and its construction.

Lives here: ``Datapath``, which each method's folder implements in its ``datapath.py``,
``DatapathContext``, the argument of a method's ``datapath``, and ``Built``, its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from paraglider.config.model import Config
from paraglider.core.balancer import Balancer
from paraglider.core.flow import Flow
from paraglider.core.flow_table import FlowTable
from paraglider.core.pool import Backend
from paraglider.core.service import VirtualService
from paraglider.forward.bpf.context import BpfContext
from paraglider.forward.carrier import Carrier

#: bytes of a packet that suffice for a decision: headers with options or some extension headers
HEAD: Final = 128

#: the sequence number, for ``Decide``, of a TCP segment in mid-stream whose flow is not known
MIDSTREAM: Final = -1

#: returns a verdict for a packet: buffer, offset, length, checksum, now (see ``Datapath.handle``)
Handle = Callable[[bytearray, int, int, int, float], int]
#: returns a verdict for a packet that may open a flow: service, protocol, key, now, sequence of a
#: SYN, or ``MIDSTREAM``
Decide = Callable[[VirtualService, int, bytes, float, int], int]
#: gets the flows decided so far by mark, and returns the live ones
LiveFlows = Callable[[Mapping[int, int]], Mapping[int, int]]


class Datapath(Protocol):
    """Decides for packets, and installs decided flows in its ``carrier``.

    ``counts`` counts packets by reason, in the order of ``core.verdict.REASONS``. ``opened``, where
    set, is called with protocol, key and backend of every new flow.
    """

    balancer: Balancer
    counts: list[int]
    opened: Callable[[int, bytes, Backend], object] | None

    @property
    def carrier(self) -> Carrier[Any]:
        """The carrier of the flows that it decided."""

    @property
    def flows(self) -> FlowTable | None:
        """Its own flow table; None if only the kernel has the flows."""

    def handle(self, buf: bytearray, offset: int, length: int, checksum: int, now: float) -> int:
        """The verdict for the IP packet in ``buf[offset:offset + length]``, or for its head.

        ``checksum`` is one of ``core.checksum``'s states, ``now`` monotonic seconds. Does not raise
        for any bytes.
        """

    def end(self, flow: Flow, now: float) -> None:
        """End ``flow`` of its flow table on the operator's request."""


class PacketOutput(Protocol):
    """Sends packets of the worker's own (``netfilter.raw_output``)."""

    def send(self, packet: bytes, destination: str) -> int:
        """Send the IP packet to ``destination``; 0, or the error number of the kernel."""

    def path(self, destination: str) -> tuple[int, bytes] | None:
        """MTU of the path to ``destination`` and this host's address on it; None: no route."""


@dataclass(frozen=True, slots=True)
class DatapathContext:
    """The arguments of building a datapath.

    ``balancer`` decides for the services of all methods that share VIPs, and ``others`` returns the
    verdict for first packets of services of other methods. ``live`` returns conntrack's live flows,
    None if they are not counted. The datapath is that of worker number ``worker`` (0, 1, …);
    ``bpf`` is what its carriers in BPF share, None if the workers carry all flows. ``output`` sends
    packets of the worker's own; None in a rehearsal, which sends nothing.
    """

    config: Config
    now: float
    balancer: Balancer
    others: Decide | None = None
    live: LiveFlows | None = None
    worker: int = 0
    bpf: BpfContext | None = None
    output: PacketOutput | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A method's datapath, and the function that applies a configuration to it.

    ``decide`` returns a verdict for a first packet that another method's datapath received; None if
    the datapath has a flow table, and must see every packet itself.
    """

    datapath: Datapath
    configure: Callable[[Config, Sequence[VirtualService]], None]
    decide: Decide | None = None
