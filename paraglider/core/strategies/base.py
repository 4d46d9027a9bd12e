"""What a strategy is: its name and parameters, and how it picks a backend for a new flow.

Lives here: ``Strategy``, the base of every strategy; ``Context`` and ``NewFlow``.
A strategy is one module of this package with one subclass of ``Strategy``. The configuration, the
JSON schema, `check`, `explain`, `start`, the log and the benchmark read its class; its name is
written nowhere else.
Rules: ``prepare`` may be slow. ``pick`` is called for every new flow: its cost must not grow with
the number of flows. ``pick`` is only called while at least one backend is ready.

A policy, which is an operator's own class (docs/policies.md), is constructed and called in the same
way; it needs ``prepare`` and ``pick`` alone.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from paraglider.core.flow import PROTOCOL_NAMES
from paraglider.core.parameter import Parameter
from paraglider.core.pool import Backend

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NewFlow:
    """The first packet of a flow, parsed: addresses are packed bytes, ports are integers.

    ``key`` is source address, destination address, source port, destination port as they stand
    in the packet (12 bytes in IPv4, 36 in IPv6; for ICMP echo the identifier stands for both
    ports). ``protocol`` is the IP protocol number, ``now`` monotonic seconds.
    """

    __slots__ = ("key", "now", "protocol")

    def __init__(self, protocol: int, key: bytes, now: float) -> None:
        self.protocol = protocol
        self.key = key
        self.now = now

    @property
    def client(self) -> bytes:
        """Packed address of the client."""
        return self.key[: (len(self.key) - 4) // 2]

    @property
    def vip(self) -> bytes:
        """Packed address the client called."""
        return self.key[(len(self.key) - 4) // 2 : -4]

    @property
    def client_port(self) -> int:
        """The client's port, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-4:-2], "big")

    @property
    def port(self) -> int:
        """The port the client called, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-2:], "big")

    @property
    def client_address(self) -> IPAddress:
        """The client's address as an object of ``ipaddress``; slower than ``client``."""
        return ipaddress.ip_address(self.client)

    @property
    def vip_address(self) -> IPAddress:
        """The address the client called as an object of ``ipaddress``; slower than ``vip``."""
        return ipaddress.ip_address(self.vip)

    @property
    def protocol_name(self) -> str:
        """The protocol's name: "tcp", "udp", "icmp" or "icmp6"."""
        return PROTOCOL_NAMES[self.protocol]


class Picker(Protocol):
    """The two methods that decide: all that a policy needs."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """See ``Strategy.prepare``."""

    def pick(self, flow: NewFlow) -> Backend:
        """See ``Strategy.pick``."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of backends that a hash points into. Tables with equal ``key`` have the same slot for
    the same flow, so that they can be compared slot by slot.
    """

    key: tuple[object, ...]
    slots: Iterator[Backend]


class Strategy(ABC):
    """Picks a backend for a new flow; one instance for each service and worker.

    It is constructed as ``Class(service=, worker=, seed=, **parameters)`` (``Context``).
    """

    #: its name in the configuration
    name: ClassVar[str]
    #: further names that the configuration accepts; messages and `show` say ``name``
    aliases: ClassVar[tuple[str, ...]] = ()
    #: which backend it picks, as the end of the sentence "picks …"
    summary: ClassVar[str]
    #: keys of `strategy_parameters`, and keywords of the constructor
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    #: the pick follows from the flow, the seed and the ready backends alone: every worker and every
    #: balancer with the same seed picks alike, and ``pick`` may be called to explain
    hashes: ClassVar[bool] = False
    #: it uses the seed of the service
    uses_seed: ClassVar[bool] = False
    #: the weights of the backends have an effect
    weighs: ClassVar[bool] = True
    #: it reads ``Backend.flows``: they are counted also where the kernel carries the flows
    counts_flows: ClassVar[bool] = False
    #: the strategy that the kernel applies under `paraglider start`: itself, or the nearest one
    #: ("wrr", "rr", "source"); None where `start` refuses it
    in_kernel: ClassVar[str | None] = None
    #: why `start` refuses it, or what the kernel does differently
    kernel_note: ClassVar[str] = "the kernel cannot compute it"

    @abstractmethod
    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """Set the backends that take new flows (each with a weight over 0).

        Called before the first ``pick`` and after every change of a state or a weight.
        """

    @abstractmethod
    def pick(self, flow: NewFlow) -> Backend:
        """Return the backend for ``flow``: one of those last given to ``prepare``."""

    def shares(self, ready: tuple[Backend, ...]) -> dict[Backend, float | None]:
        """Return the share of all new flows that each of ``ready`` gets in the long run, from 0 to
        1; None where that is not known. By default: by weight, or equal without weights.
        """
        weights = [backend.weight if self.weighs else 1 for backend in ready]
        total = sum(weights)
        return {each: weight / total for each, weight in zip(ready, weights, strict=True)}

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """Return in one line how it decides about ``flow``, for `explain`; changes nothing."""
        return f"{self.name} picks {self.summary}"

    def table(self) -> LookupTable | None:
        """Return the table that a hash points into; None where there is no such table."""
        return None


@dataclass(frozen=True, slots=True)
class Context:
    """What a strategy is constructed with.

    ``service`` is the name of its service; ``worker`` (0, 1, …) lets the turns of the workers start
    apart; ``seed`` makes hashes differ from those of an equal service elsewhere, or agree;
    ``parameters`` are those of the configuration.
    """

    service: str = ""
    worker: int = 0
    seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def keywords(self) -> dict[str, Any]:
        """The keywords of the constructor."""
        own = {"service": self.service, "worker": self.worker, "seed": self.seed}
        return {**self.parameters, **own}


class UserClass(Protocol):
    """The constructor of a policy: the fields of ``Context`` as keywords."""

    def __call__(self, *, service: str, worker: int, seed: int, **parameters: Any) -> Picker:
        """An instance for one service in one worker."""
