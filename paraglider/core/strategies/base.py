"""The base class of strategies: name, parameters, and the choice of a backend for a new flow.

Lives here: ``Strategy``, the base of every strategy; ``Context``, ``NewFlow``, ``LookupTable`` and
``DecisionTable``. A strategy is one module of this package with one subclass of ``Strategy``. The
configuration, the JSON schema, `check`, `explain`, `start`, the log and the benchmark read its
class; its name is written nowhere else.
Rules: ``prepare`` may be slow. ``pick`` is called for every new flow: its cost must not grow with
the number of flows. ``pick`` is only called while at least one backend is ready.

A policy, a class of the operator (docs/policies.md), is constructed and called in the same way; it
needs only ``prepare`` and ``pick``.
"""

from __future__ import annotations

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from paraglider.core.flow import PROTOCOL_NAMES
from paraglider.core.parameter import Parameter
from paraglider.core.pool import Backend

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NewFlow:
    """The first packet of a flow, parsed: addresses are packed bytes, ports are integers.

    ``key`` is source address, destination address, source port, destination port as in the packet
    (12 bytes in IPv4, 36 in IPv6; for ICMP echo the identifier is both ports). ``protocol`` is the
    IP protocol number, ``now`` monotonic seconds.
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
        """Packed destination address, the VIP."""
        return self.key[(len(self.key) - 4) // 2 : -4]

    @property
    def client_port(self) -> int:
        """The client's port, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-4:-2], "big")

    @property
    def port(self) -> int:
        """The destination port, or the identifier of an ICMP echo."""
        return int.from_bytes(self.key[-2:], "big")

    @property
    def client_address(self) -> IPAddress:
        """The client's address as an object of ``ipaddress``; slower than ``client``."""
        return ipaddress.ip_address(self.client)

    @property
    def vip_address(self) -> IPAddress:
        """The VIP as an object of ``ipaddress``; slower than ``vip``."""
        return ipaddress.ip_address(self.vip)

    @property
    def protocol_name(self) -> str:
        """The protocol's name: "tcp", "udp", "icmp" or "icmp6"."""
        return PROTOCOL_NAMES[self.protocol]


class Picker(Protocol):
    """The two methods that a policy needs."""

    def prepare(self, ready: tuple[Backend, ...]) -> None:
        """See ``Strategy.prepare``."""

    def pick(self, flow: NewFlow) -> Backend:
        """See ``Strategy.pick``."""


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of backends indexed by a hash. Tables with equal ``key`` have the same slot for the
    same flow, so that they can be compared slot by slot.
    """

    key: tuple[object, ...]
    slots: Iterator[Backend]


#: by what the kernel finds the entry of a new flow in a table: the next one in turn, or the hash of
#: the client's address, or of the flow key
KernelPick = Literal["turn", "client", "flow"]
#: returns the number of live flows of a backend
Load = Callable[[Backend], int]


@dataclass(frozen=True, slots=True)
class DecisionTable:
    """A table by which the kernel picks: entry n is the backend ``backends[entries[n]]``. Without
    entries the kernel decides nothing. ``hash_key`` is the key of the hash, of two words of 64
    bits, if it picks by one.
    """

    backends: tuple[Backend, ...]
    entries: Sequence[int]
    hash_key: tuple[int, int] = (0, 0)


class Strategy(ABC):
    """Picks a backend for a new flow; one instance for each service and worker.

    It is constructed as ``Class(service=, worker=, seed=, **parameters)`` (``Context``).
    """

    #: its name in the configuration
    name: ClassVar[str]
    #: further names that the configuration accepts; messages and `show` use ``name``
    aliases: ClassVar[tuple[str, ...]] = ()
    #: which backend it picks, as the end of the sentence "picks …"
    summary: ClassVar[str]
    #: keys of `strategy_parameters`, and keywords of the constructor
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    #: the pick depends only on the flow, the seed and the ready backends: every worker and every
    #: balancer with the same seed picks the same backend, and ``explain`` may call ``pick``
    hashes: ClassVar[bool] = False
    #: it uses the seed of the service
    uses_seed: ClassVar[bool] = False
    #: the weights of the backends have an effect
    weighs: ClassVar[bool] = True
    #: each worker keeps a turn of its own, and the kernel one for all workers
    takes_turns: ClassVar[bool] = False
    #: it reads ``Backend.flows``: they are counted also where the kernel carries the flows
    counts_flows: ClassVar[bool] = False
    #: how the kernel picks by ``kernel_table``, with ``carrier: bpf``; None if only a worker can
    kernel_pick: ClassVar[KernelPick | None] = None
    #: the strategy that the kernel applies under `paraglider start`: itself, or the nearest one
    #: ("wrr", "rr", "source"); None where `start` refuses it
    in_kernel: ClassVar[str | None] = None
    #: why `start` refuses it, or what the kernel does differently
    kernel_note: ClassVar[str] = "the kernel cannot compute it"

    @property
    def repeatable(self) -> bool:
        """Whether every balancer picks the same backend for a flow at any time, so that any packet
        of a flow leads to the flow's backend (``core.adoption``).
        """
        return self.hashes

    def among(self, backends: tuple[Backend, ...]) -> Strategy | None:
        """Return a copy that picks from ``backends``, at least one, in place of those that this
        strategy has; None if it does not hash.
        """
        if not self.hashes:
            return None
        other = copy(self)
        other.prepare(backends)
        return other

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
        1; None if unknown. By default in proportion to the weights, or equal without weights.
        """
        weights = [backend.weight if self.weighs else 1 for backend in ready]
        total = sum(weights)
        return {each: weight / total for each, weight in zip(ready, weights, strict=True)}

    @classmethod
    def turns(cls, *, by_kernel: bool = False) -> str:
        """Return which turn is meant, to be put after ``summary``; empty if it does not
        ``takes_turns``.
        """
        if not cls.takes_turns:
            return ""
        return "; one turn for all workers" if by_kernel else "; each worker keeps its own turn"

    def reason(self, flow: NewFlow, ready: tuple[Backend, ...]) -> str:
        """Return one line: why ``flow`` gets its backend, for `explain`, which adds ``turns``;
        changes no state.
        """
        return f"{self.name} picks {self.summary}"

    def kernel_table(self, load: Load, turns: int) -> DecisionTable:
        """Return the table by which the kernel picks for the backends last given to ``prepare``.

        ``load`` returns the live flows of a backend over all workers, ``turns`` is how many entries
        of the table before the kernel has used; both are for a strategy that ``counts_flows``,
        whose first entry is the next pick. Raises ``TypeError`` without ``kernel_pick``.
        """
        raise TypeError(f"{self.name}: the kernel does not pick by this strategy")

    def table(self) -> LookupTable | None:
        """Return the look-up table of the hash; None if there is none."""
        return None


@dataclass(frozen=True, slots=True)
class Context:
    """The arguments of a strategy's constructor.

    ``service`` is the name of its service; ``worker`` is the worker's number (0, 1, …), so that
    turns start at different backends; ``seed`` is the seed of hashes, equal on balancers that must
    pick the same backends; ``parameters`` are those of the configuration.
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
