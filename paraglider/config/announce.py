"""The section `announce` of the configuration file: how VIPs are announced to routers.

Lives here: ``AnnounceConfig``, its sections, and ``announced`` (the VIPs that are announced).
Rules: as in ``config.model``; this module is below it. Paraglider speaks no BGP: `paraglider
announce` tells ExaBGP, BIRD or a program what holds for each VIP.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Protocol

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from paraglider.config.durations import parse_duration
from paraglider.config.own_address import OwnAddress
from paraglider.config.section import Section, duration_schema
from paraglider.config.types import Address, IPAddress, IPInterface, parse_address
from paraglider.config.wording import shown, ticked

#: a family (4 or 6), or one VIP
ProtocolKey = int | IPAddress
#: numbers of four octets (RFC 6793); 0 is reserved (RFC 7607)
_LARGEST: Final = (1 << 32) - 1
#: seconds
_LONGEST_HOLD: Final = 86_400
_LONGEST_RISE: Final = 3600
_SYMBOL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

AsNumber = Annotated[int, Field(ge=1, le=_LARGEST)]
Med = Annotated[int, Field(ge=0, le=_LARGEST)]


def _vips(value: Any) -> Any:
    """`all`, or a list of addresses."""
    if isinstance(value, str) and value != "all":
        raise ValueError(f"{shown(value)} is neither `all` nor a list; write [{value}]")
    return tuple(map(parse_address, value)) if isinstance(value, list) else value


def _next_hop(value: Any, _handler: ValidatorFunctionWrapHandler) -> str | IPAddress | OwnAddress:
    """Validates each form by itself, so that an error is about the form that was used."""
    if isinstance(value, dict):
        return OwnAddress.model_validate(value)
    if value == "self":
        return "self"
    if isinstance(value, OwnAddress):
        return value
    try:
        return parse_address(value)
    except ValueError:
        raise ValueError(
            f"{shown(value)} is no next hop; write self, an address, or {{interface: eth0}}"
        ) from None


def _plain_hop(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, OwnAddress) else str(value)


def _gone(value: Any) -> Any:
    """A word, or a duration in seconds."""
    if value in ("withdraw", "prefer_not"):
        return value
    with contextlib.suppress(ValueError):
        seconds = parse_duration(value)
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if number and 0 <= seconds <= _LONGEST_HOLD:
            return float(seconds)
    raise ValueError(
        f"{shown(value)} is neither a word nor a number of seconds; write withdraw, prefer_not, or"
        f" the seconds from 0 to {_LONGEST_HOLD} for which routes are kept, such as 30 or 2m"
    )


def _protocols(value: Any) -> dict[ProtocolKey, str]:
    """Names of BIRD's protocols by a family or a VIP."""
    if not isinstance(value, dict):
        remedy = "write the names of BIRD's protocols: {4: paraglider4, 6: paraglider6}"
        raise ValueError(f"{shown(value)} where a section belongs; {remedy}")
    found: dict[ProtocolKey, str] = {}
    for key, name in value.items():
        if not isinstance(name, str) or _SYMBOL.fullmatch(name) is None:
            remedy = "use letters, digits and underscores, as in bird.conf"
            raise ValueError(f"{shown(name)} is no name of a protocol of BIRD; {remedy}")
        found[_protocol_key(key)] = name
    return found


def _protocol_key(key: Any) -> ProtocolKey:
    if str(key) in ("4", "6"):
        return int(key)
    try:
        return parse_address(key)
    except ValueError:
        raise ValueError(f"{ticked(key)} is no family and no VIP; write 4, 6 or a VIP") from None


_PROTOCOL_NAMES = {"type": "object", "additionalProperties": {"type": "string"}}
_VIPS = {"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}}]}
_GONE = {
    "anyOf": [
        {"enum": ["withdraw", "prefer_not"]},
        *duration_schema("number", 0, _LONGEST_HOLD)["anyOf"],
    ]
}

Vips = Annotated[
    Literal["all"] | tuple[Address, ...], BeforeValidator(_vips), WithJsonSchema(_VIPS)
]
NextHop = Annotated[
    Literal["self"] | Address | OwnAddress, WrapValidator(_next_hop), PlainSerializer(_plain_hop)
]
Gone = Annotated[
    Literal["withdraw", "prefer_not"] | float, BeforeValidator(_gone), WithJsonSchema(_GONE)
]
Protocols = Annotated[
    dict[ProtocolKey, str],
    WrapValidator(lambda value, _: _protocols(value)),
    PlainSerializer(lambda names: {str(key): name for key, name in names.items()}),
    WithJsonSchema(_PROTOCOL_NAMES),
]


_Rise = Annotated[
    float,
    Field(ge=0, le=_LONGEST_RISE),
    BeforeValidator(parse_duration),
    WithJsonSchema(duration_schema("number", 0, _LONGEST_RISE)),
]


class BirdConfig(Section):
    """BIRD: protocols that are enabled and disabled at its control socket."""

    socket: str = Field(
        default="/run/bird/bird.ctl",
        pattern=r"^/",
        max_length=107,  # sun_path less its NUL (unix(7))
        description="Control socket of BIRD.",
    )
    protocols: Protocols = Field(
        description="Protocols with the routes of the VIPs, by a family (4, 6) or a VIP.",
    )
    worse: Protocols = Field(
        default_factory=dict,
        description="Protocols with the same routes, which routers do not prefer.",
    )


class AnnounceConfig(Section):
    """How VIPs are announced to routers, by `paraglider announce`; leave it out for none."""

    via: Literal["exabgp", "bird", "exec"] | None = Field(
        default=None, description="What `paraglider announce` tells, without an option."
    )
    vips: Vips | None = Field(
        default=None, description="all, or a list; default: each VIP that is a /32 or /128."
    )
    next_hop: NextHop = Field(
        default="self", description="ExaBGP: self, an address, or the interface of this host."
    )
    neighbors: tuple[Address, ...] = Field(
        default=(), description="ExaBGP: its neighbors; default: all.", strict=False
    )
    when: Literal["any", "all"] = Field(
        default="any", description="How many services of a VIP need a ready backend."
    )
    ill: Literal["prefer_not", "withdraw"] = Field(
        default="prefer_not",
        description="A VIP without a ready backend, or a drained or unhealthy balancer:"
        " routers are asked to prefer others, or the route is withdrawn.",
    )
    med: Med = Field(default=100, description="MED of a VIP.")
    worse_med: Med = Field(default=1000, description="MED of a VIP that is not preferred.")
    prepend: tuple[AsNumber, ...] = Field(
        default=(),
        description="AS path of a VIP that is not preferred: your own AS number, repeated.",
        strict=False,
    )
    gone: Gone = Field(
        default="withdraw",
        description="While the daemon is gone: withdraw, prefer_not, or the seconds for which"
        " routes are kept.",
    )
    rise: _Rise = Field(
        default=1.0,
        description="Seconds that a VIP must be well before it is announced; 0: at once, also"
        " while it flaps.",
    )
    bird: BirdConfig | None = Field(default=None, description="Settings for BIRD.")
    exec: tuple[str, ...] = Field(
        default=(),
        description="Program, with arguments, that is told a VIP, what holds, and why.",
        strict=False,
    )


class VipOwner(Protocol):
    """What is needed of a service."""

    @property
    def vip(self) -> IPInterface:
        """Its VIP."""


def announced(config: AnnounceConfig | None, services: Iterable[VipOwner]) -> tuple[IPAddress, ...]:
    """The VIPs of ``services`` that are announced, each once, in the order of the file."""
    if config is None:
        return ()
    wanted = config.vips

    def chosen(vip: IPInterface) -> bool:
        if vip.ip.is_loopback:
            return False
        if wanted is None:
            return vip.network.prefixlen == vip.max_prefixlen
        return wanted == "all" or vip.ip in wanted

    return tuple(dict.fromkeys(one.vip.ip for one in services if chosen(one.vip)))


def protocol_of(names: dict[ProtocolKey, str], vip: IPAddress) -> str | None:
    """The protocol of ``vip`` among ``names``: its own, or that of its family."""
    return names.get(vip) or names.get(vip.version)
