"""The sections about health checks: a service's check, failover.

Lives here: ``Check``, ``Expect``, ``Failover``.
Rules: as in ``model``. The keys are described in docs/health.md.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from paraglider.config.probe import ProbeClass, ProbeName, ProbeParameters, probes
from paraglider.config.section import Duration, Section
from paraglider.config.types import Address, Pattern, Port, Statuses, StatusRange

#: upper limit of the default timeout of a probe, in seconds
LONGEST_PATIENCE: Final = 1.0

_Text = Annotated[str, Field(max_length=1000)]


class Expect(Section):
    """Conditions on the HTTP response for the backend to pass."""

    status: Statuses = Field(
        default=(StatusRange(200, 399),), description='200, "200-399", or a list of these.'
    )
    body: Pattern | None = Field(
        default=None, description="Regular expression found in the first 64 KiB of the body."
    )


class Check(Section):
    """The health check of each backend of the service."""

    type: ProbeName = Field(default="tcp", description="Kind of the check.")
    port: Port | None = Field(
        default=None, description="Port to check; default: the port of the flows."
    )
    path: str = Field(
        default="/",
        pattern=r"^/[!-~]*$",
        max_length=1000,
        description="http, https: path of the request.",
    )
    host: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.:\[\]-]{1,255}$",
        description="http, https: value of Host, and name of the certificate.",
    )
    expect: Expect = Expect()
    verify: bool = Field(
        default=False, description="https: the certificate must be valid for `host`."
    )
    command: tuple[_Text, ...] | None = Field(
        default=None,
        min_length=1,
        strict=False,
        description="exec: program with its arguments; exit code 0 passes.",
    )
    parameters: ProbeParameters = Field(
        default_factory=dict, description="Further parameters of the probe, by their names."
    )
    interval: Duration = Field(default=2.0, description="Seconds between two checks.")
    timeout: Duration | None = Field(
        default=None, description="Seconds for a whole check; default: `interval`, at most 1."
    )
    rise: int = Field(
        default=2, ge=1, le=1000, description="Consecutive passes until a backend is up."
    )
    fall: int = Field(
        default=3, ge=1, le=1000, description="Consecutive failures until a backend is down."
    )

    @property
    def probe(self) -> ProbeClass:
        """The class of its probe."""
        return probes()[self.type]

    @property
    def patience(self) -> float:
        """Timeout of a probe, in seconds.

        The default is short enough that a silent backend is down within `interval` × `fall` + 1 s:
        the next probe begins after `interval` at the latest, and `fall` probes in sequence take
        `fall` × min(`interval`, 1).
        """
        return self.timeout if self.timeout is not None else min(self.interval, LONGEST_PATIENCE)


class Failover(Section):
    """Failover mode (`-f`): hosts of the backends' network that answer a ping and serve are
    backends.
    """

    enabled: bool = Field(default=False, description="Enable failover without `-f`.")
    check_cycle: Duration = Field(default=30.0, description="Seconds between two rounds.")
    port_alive: Port = Field(default=80, description="TCP port that a live backend accepts on.")
    broadcast: Address | None = Field(default=None, description="Broadcast address to ping.")
    discover: bool = Field(default=True, description="Add hosts that answer and are not listed.")
    rise: int = Field(default=2, ge=1, le=1000, description="Good rounds until a backend is up.")
    fall: int = Field(default=3, ge=1, le=1000, description="Bad rounds until a backend is down.")
    timeout: Duration = Field(default=2.0, description="Seconds to wait for one answer.")
