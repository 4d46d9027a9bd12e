"""The route of a service: which TLS connections of another service it takes.

Lives here: ``RouteConfig``, and its types ``ServerNames`` and ``Protocols``. ``config.route_list``
makes services with routes of what a file has.
Rules: as in ``config.model``. No I/O.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from paraglider.config.section import Section
from paraglider.config.wording import shown
from paraglider.core.client_hello import plain_name
from paraglider.core.hello_routes import RouteMatch

#: most names, and most protocols, of one route
MOST = 1000

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*\.?", re.ASCII)
_LONGEST_NAME = 254  # with a dot at the end (RFC 1035 §2.3.4)
_PROTOCOL = re.compile(r"[!-~]{1,255}")  # RFC 7301 §3.1; those in use are ASCII


def parse_server_name(value: Any) -> str:
    """A name of a server, or `*.` before one; raises ``ValueError`` with the remedy."""
    if isinstance(value, str) and _NAME.fullmatch(value) and len(value) <= _LONGEST_NAME:
        return plain_name(value)
    remedy = 'write one such as "www.a.example", or "*.a.example" for one more label'
    if isinstance(value, str) and not value.isascii():
        remedy = "write it as clients send it, in ASCII (xn--...)"
    raise ValueError(f"{shown(value)} is no name of a server; {remedy}")


def parse_protocol(value: Any) -> str:
    """An ALPN protocol; raises ``ValueError`` with the remedy."""
    if isinstance(value, str) and _PROTOCOL.fullmatch(value):
        return value
    remedy = 'write one such as h2, "http/1.1" or imap'
    raise ValueError(f"{shown(value)} is no protocol of ALPN; {remedy}")


def _schema(what: str) -> WithJsonSchema:
    text = {"type": "string", "minLength": 1, "maxLength": 255}
    several = {"type": "array", "items": text, "minItems": 1, "maxItems": MOST}
    return WithJsonSchema({"anyOf": [text, several], "description": what})


ServerNames = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_server_name)], ...],
    Field(min_length=1, max_length=MOST, strict=False),
    _schema("Names of servers (SNI), one or a list; *.a.example has one more label."),
]
Protocols = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_protocol)], ...],
    Field(min_length=1, max_length=MOST, strict=False),
    _schema("Protocols (ALPN) of which the client offers one; one or a list."),
]


class RouteConfig(Section):
    """Connections with one of the names, and one of the protocols, go to backends of their own."""

    service: SkipJsonSchema[str] = Field(description="The service that accepts the connections.")
    sni: ServerNames | None = Field(
        default=None, description="Names of servers (SNI), one or a list."
    )
    alpn: Protocols | None = Field(
        default=None, description="Protocols (ALPN) of which the client offers one, or a list."
    )

    def __str__(self) -> str:
        names, protocols = ", ".join(self.sni or ()), ", ".join(self.alpn or ())
        return " with ".join(filter(None, (names, protocols)))

    @property
    def match(self) -> RouteMatch:
        """The same for the core."""
        return RouteMatch(self.service, self.sni or (), self.alpn or ())
