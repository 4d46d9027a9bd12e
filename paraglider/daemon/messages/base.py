"""What messages of both directions have: their base, bounded fields, answers of several peers."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    TypeAdapter,
)

from paraglider.config.model import Config
from paraglider.config.types import parse_endpoint
from paraglider.errors import OperatorError, ParagliderError, PlatformError
from paraglider.forward.flows import Match
from paraglider.health.results import Name

#: flows that one process lists at most
MOST_LISTED: Final = 1000

Index = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
Mark = Annotated[int, Field(ge=0, le=(1 << 32) - 1)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]
#: states and weights by service and backend
StateTable = dict[str, dict[str, tuple[str, int]]]
#: validates what comes from a peer
Receives = TypeAdapter[Any]


def _config(plain: Any) -> Config:
    """The configuration has types that are read as from YAML, not from JSON."""
    return plain if isinstance(plain, Config) else Config.model_validate(plain)


PlainConfig = Annotated[
    Config,
    PlainValidator(_config),
    PlainSerializer(lambda config: config.model_dump(mode="json", by_alias=True)),
]


def _server(text: str) -> str:
    if text:
        parse_endpoint(text)
    return text


class Message(BaseModel):
    """Base of all messages; ``type`` tells them apart."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class FlowMatch(Message):
    """Which flows are meant: of clients in a network, to a backend, of a service; None for any.
    ``client`` is the text of an address or a network.
    """

    client: Name | None = None
    backend: Name | None = None
    service: Name | None = None

    def parsed(self) -> Match:
        """For the flows' side; raises ``OperatorError`` for what is no client."""
        return Match.of(self.model_dump())

    @classmethod
    def of(cls, match: Match) -> Self:
        """What ``parsed`` reads."""
        return cls(**match.words())


class DnsName(NamedTuple):
    """A name with SRV records, the server to ask (empty: the host's), and the family wanted."""

    name: Name
    server: Annotated[Name, AfterValidator(_server)]
    family: Literal[4, 6]


class Acknowledged(Message):
    """It is done."""

    type: Literal["acknowledged"] = "acknowledged"


class Refusal(Message):
    """What could not be done, and what would be right; ``lines`` are mistakes in a file."""

    type: Literal["refusal"] = "refusal"
    error: str
    remedy: str = ""
    fault: Literal["operator", "platform"]
    lines: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: ParagliderError) -> Refusal:
        """``error``, with the lines of a ``ConfigError``."""
        return cls(
            error=error.what,
            remedy=error.remedy,
            fault="operator" if isinstance(error, OperatorError) else "platform",
            lines=tuple(getattr(error, "lines", ())),
        )

    def to_error(self) -> ParagliderError:
        """The error, to be raised where the request was made."""
        kind = OperatorError if self.fault == "operator" else PlatformError
        return kind(self.error, self.remedy)
