"""The configuration file as immutable objects (pydantic 2). The file is YAML.

Lives here: one class per section, one documented field per key; those of a service are in
``config.service``. The JSON Schema in ``conf/paraglider.schema.json`` is generated from these
classes.
Rules: a field's own type and range are checked here; contradictions between fields or services in
``check``; the host (interfaces, users, cores) by ``paraglider.host``. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from paraglider.config.announce import AnnounceConfig, announced
from paraglider.config.backend import BackendConfig, BackendSource
from paraglider.config.durations import parse_whole
from paraglider.config.health import Failover
from paraglider.config.memory import flows_for_memory
from paraglider.config.network import Network
from paraglider.config.places import CONTROL_SOCKET
from paraglider.config.section import SECONDS_SCHEMA, Seconds, Section
from paraglider.config.service import Service
from paraglider.config.types import IPAddress

__all__ = ["BackendConfig", "BackendSource", "Config", "Network", "Service", "TimeoutsConfig"]


class Workers(Section):
    """Which cores carry a worker; by default every core the process may run on."""

    first_core: int | None = Field(
        default=None, ge=0, le=4095, description="First core with a worker."
    )
    last_core: int | None = Field(
        default=None, ge=0, le=4095, description="Last core with a worker."
    )


class QueueConfig(Section):
    """How packets are read from the kernel."""

    length: int = Field(
        default=2048,
        ge=1,
        le=65536,
        description="Packets of established traffic that may wait for a worker.",
    )
    openings: int = Field(
        default=512,
        ge=1,
        le=65536,
        description="Packets that may wait in a worker's queue of new flows.",
    )
    openings_rate: int = Field(
        default=30_000,
        ge=0,
        le=10_000_000,
        description="New flows a second and worker from unknown clients, and adopted ones at"
        " most; 0: no limit.",
    )
    io: Literal["auto", "netlink", "netfilterqueue"] = Field(
        default="auto", description="Queue I/O; auto uses the fastest that works."
    )


class ControlConfig(Section):
    """The control socket."""

    socket: str = Field(
        default=CONTROL_SOCKET,
        pattern=r"^/",
        max_length=107,  # sun_path less its NUL (unix(7))
        description="Path of the Unix socket.",
    )
    announcer: str | None = Field(
        default=None,
        min_length=1,
        description="User that may read here what to announce, and that `paraglider announce`"
        " becomes; default: `user`, in a file with `announce`.",
    )


class Stats(Section):
    """The stats page, JSON and Prometheus; leave the section out for none."""

    bind: str = Field(default="127.0.0.1:9777", description="ADDRESS:PORT to listen on.")
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,252}$")], ...] = Field(
        default=(),
        description="Host names that browsers may use besides its address and localhost.",
        strict=False,
    )
    peers: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="Pages of other balancers, http://ADDRESS:PORT, which this one shows too.",
        strict=False,
    )
    admin: bool = Field(
        default=False, description="Allow changes of states and weights with the token."
    )
    token_file: str | None = Field(
        default=None,
        pattern=r"^/",
        max_length=4095,
        description="File with the token; default: generated beside the control socket.",
    )


def _closed_from_number(value: Any) -> Any:
    """One duration is for either end of a flow; True and False are no numbers here."""
    seconds = parse_whole(value)
    return {"rst": seconds, "fin": seconds} if type(seconds) is int else value


class Closed(Section):
    """Seconds for which a closed TCP flow is kept; one number stands for both."""

    rst: Seconds = Field(default=10, description="After a RST.")
    fin: Seconds = Field(default=60, description="After both FINs (TIME_WAIT).")


class _DurationAlone:
    """Adds to the JSON Schema that a single duration may replace the section."""

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [SECONDS_SCHEMA, handler(schema)]}


class TimeoutsConfig(Section):
    """Idle seconds after which a flow is forgotten (RFC 5382, RFC 4787, RFC 5508)."""

    syn: Seconds = Field(default=240, description="TCP, half-open, or before the last ACK.")
    established: Seconds = Field(default=7440, description="TCP, established or half-closed.")
    closed: Annotated[Closed, BeforeValidator(_closed_from_number), _DurationAlone] = Field(
        default=Closed(), description="TCP, closed: {rst: 10, fin: 60}, or one number for both."
    )
    closing: Seconds | None = Field(
        default=None, description="Old name of `closed`; proxy: half-closed and idle."
    )
    udp: Seconds = Field(default=120, description="UDP.")
    icmp: Seconds = Field(default=60, description="ICMP echo.")
    connect: Seconds = Field(default=5, description="Proxy: for a backend to accept.")
    hello: Seconds = Field(
        default=5, description="Proxy: for a TLS client to say the name, with `route`."
    )
    drain: Seconds = Field(default=10, description="Proxy: for connections to end at a stop.")
    affinity: Seconds = Field(
        default=300, description="How long a client keeps its backend after its last flow."
    )

    @property
    def after_rst(self) -> int:
        """Seconds for which a flow is remembered that a RST has closed."""
        return self.closed.rst if self._old_name is None else self._old_name

    @property
    def after_fin(self) -> int:
        """Seconds for which a flow is remembered that both FINs have closed."""
        return self.closed.fin if self._old_name is None else self._old_name

    @property
    def half_closed(self) -> int:
        """Proxy: seconds without a byte after which a connection with one way ended is reset."""
        return self.established if self.closing is None else self.closing

    @property
    def _old_name(self) -> int | None:
        """The value given for ``closed`` under its old name."""
        return None if "closed" in self.model_fields_set else self.closing


class Flows(Section):
    """Bounds of the flow table."""

    max: int = Field(
        default_factory=flows_for_memory,
        ge=1,
        le=100_000_000,
        description="Flows of a worker at most; default: what fits into an eighth of the memory.",
    )


class PoliciesConfig(Section):
    """Strategies of your own, `package.module:Class`; see docs/policies.md."""

    path: str | None = Field(
        default=None,
        pattern=r"^/",
        description="Directory of the modules; default: `policies` beside this file.",
    )
    budget_ms: int = Field(
        default=5, ge=1, le=1000, description="Milliseconds that one pick may take."
    )


class Config(Section):
    """A whole configuration file."""

    workers: Workers = Workers()
    queue: QueueConfig = QueueConfig()
    user: str = Field(default="nobody", min_length=1, description="User that the workers run as.")
    chroot: str = Field(
        default="/var/run/empty",
        pattern=r"^/",
        description="Root directory that the workers are confined to.",
    )
    control: ControlConfig = ControlConfig()
    stats: Stats | None = None
    network: Network = Network()
    announce: AnnounceConfig | None = None
    timeouts: TimeoutsConfig = TimeoutsConfig()
    flows: Flows = Flows()
    policies: PoliciesConfig = PoliciesConfig()
    failover: Failover = Failover()
    seed: int | None = Field(
        default=None,
        ge=0,
        le=18_446_744_073_709_551_615,
        description="Key of all hashes: of services without a `seed`, of the kernel where it"
        " decides, of the spread over the workers. Default: the key of this host.",
    )
    watch: bool = Field(default=False, description="Reload when the file changes.")
    services: tuple[Service, ...] = Field(min_length=1, description="The services.", strict=False)

    def seeded(self, machine: int | None) -> Config:
        """The same configuration, with a seed where a service that hashes has none: that of the
        file, or the ``machine``'s (64 bits; None: it is not known, and the service has none).
        """
        seed = machine if self.seed is None else self.seed
        services = tuple(
            service.model_copy(update={"seed": seed})
            if service.seed is None and service.strategy_class.uses_seed
            else service
            for service in self.services
        )
        return self.model_copy(update={"services": services})

    def for_families(self, families: frozenset[int]) -> Config:
        """The same configuration with only the services of ``families`` ({4}, {6} or both)."""
        return self.only(lambda service: service.family in families)

    def only(self, chosen: Callable[[Service], bool]) -> Config:
        """The same configuration with only the ``chosen`` services; there may be none."""
        services = tuple(service for service in self.services if chosen(service))
        return self.model_copy(update={"services": services})

    @property
    def announced(self) -> tuple[IPAddress, ...]:
        """The VIPs that are announced to routers, in the order of the file."""
        return announced(self.announce, self.services)

    @property
    def announcer(self) -> str | None:
        """The user besides root that may read at the control socket what to announce."""
        by_default = None if self.announce is None else self.user
        return self.control.announcer or by_default

    @property
    def wants_bpf(self) -> bool:
        """Whether BPF carries flows of a service if the kernel can (`carrier` is not `worker`)."""
        return any(service.wants_bpf for service in self.services)

    @property
    def wants_xdp(self) -> bool:
        """Whether a service wants BPF also at XDP."""
        return any(service.wants_xdp for service in self.services)

    @property
    def queued(self) -> Config:
        """The same configuration with the services whose packets pass the workers' queues."""
        return self.only(lambda service: service.method.queued)

    @property
    def listening(self) -> Config:
        """The same configuration with the services for which proxy workers listen."""
        return self.only(lambda service: service.method.listens)
