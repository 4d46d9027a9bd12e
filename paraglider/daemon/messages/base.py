"""The base of all messages, bounded fields, and answers that several peers send."""

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

#: most flows that one process lists
MOST_LISTED: Final = 1000

Index = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
Mark = Annotated[int, Field(ge=0, le=(1 << 32) - 1)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]
#: states and weights by service and backend
StateTable = dict[str, dict[str, tuple[str, int]]]
#: validates the messages of a peer
Receives = TypeAdapter[Any]


def _config(plain: Any) -> Config:
    """Validate the configuration as if read from YAML: it has types that JSON lacks."""
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
    """Base of all messages; ``type`` is the discriminator."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class FlowMatch(Message):
    """Selects flows: of clients in a network, to a backend, of a service; None for any.
    ``client`` is the text of an address or a network.
    """

    client: Name | None = None
    backend: Name | None = None
    service: Name | None = None

    def parsed(self) -> Match:
        """As ``forward.flows.Match``; raises ``OperatorError`` for an invalid client."""
        return Match.of(self.model_dump())

    @classmethod
    def of(cls, match: Match) -> Self:
        """The message that ``parsed`` reads."""
        return cls(**match.words())


class DnsName(NamedTuple):
    """A name with SRV records, the server to query (empty: the host's), and the family."""

    name: Name
    server: Annotated[Name, AfterValidator(_server)]
    family: Literal[4, 6]


class Acknowledged(Message):
    """The request was carried out."""

    type: Literal["acknowledged"] = "acknowledged"


class Refusal(Message):
    """Why the request was refused, and the remedy; ``lines`` are mistakes in a file."""

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
        """The error, to be raised by the requester."""
        kind = OperatorError if self.fault == "operator" else PlatformError
        return kind(self.error, self.remedy)
