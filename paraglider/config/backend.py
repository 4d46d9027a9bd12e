"""The backends of a service of the configuration file, or where they are listed.

Lives here: ``BackendConfig``, ``BackendSource``, and ``BackendsOrSource``, the type of `backends`;
``MinReady``, how many of them a service needs, and ``least_ready``.
Rules: as in ``config.model``. No I/O.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from paraglider.config.section import Section
from paraglider.config.types import Address, Port, parse_backend
from paraglider.config.wording import shown

#: the largest number of `min_ready`
_MOST: Final = 65_535
_SHARE: Final = re.compile(r"(?:100|[1-9]?[0-9])%", re.ASCII)
_SHAPE: Final = 'write 10.0.0.1, 10.0.0.1:8080 or "[fd00:10::1]:8080"'


def _backend_from_text(value: Any) -> Any:
    """A backend written as ADDRESS or ADDRESS:PORT."""
    if not isinstance(value, str):
        return value
    if value.startswith("[") or value.count(":") == 1:
        return dict(parse_backend(value, _SHAPE))
    return {"address": value}


class _AddressAlone:
    """Lets the JSON Schema accept a backend written as its address, or ADDRESS:PORT, only."""

    @staticmethod
    def __get_pydantic_json_schema__(
        schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "string", "description": "ADDRESS or ADDRESS:PORT."},
                handler(schema),
            ]
        }


class BackendConfig(Section):
    """One backend of a service."""

    address: Address = Field(description="Address of the backend.")
    port: Port | None = Field(
        default=None, description="Port of the backend, if it differs from the service's."
    )
    weight: int = Field(default=1, ge=0, le=65535, description="Share of new flows; 0: none.")

    @cached_property
    def name(self) -> str:
        """Its name in messages: ADDRESS, or ADDRESS:PORT if its port is mapped."""
        if self.port is None:
            return str(self.address)
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


class BackendSource(Section):
    """Where the backends are listed, if not here: a file, or the DNS. Give one of the two."""

    file: str | None = Field(
        default=None,
        pattern=r"^/",
        max_length=4095,
        description="A file with one backend per line.",
    )
    dns: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*\.?$",
        max_length=253,
        description="A name with SRV records, which have ports and weights.",
    )
    server: str | None = Field(
        default=None,
        description="With dns: ADDRESS:PORT of the name server; default: /etc/resolv.conf.",
    )


Backends = Annotated[
    tuple[Annotated[BackendConfig, BeforeValidator(_backend_from_text), _AddressAlone], ...],
    Field(min_length=1, strict=False),
]
_LISTED: TypeAdapter[tuple[BackendConfig, ...]] = TypeAdapter(Backends)


def _min_ready(value: Any) -> Any:
    """A number of backends, or a share of them such as `50%`."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
        return value
    if isinstance(value, str) and _SHARE.fullmatch(value):
        return value
    raise ValueError(
        f"{shown(value)} is no number of backends; write one from 0 to {_MOST}, or a share from"
        " 0% to 100%, such as 50%"
    )


MinReady = Annotated[
    int | str,
    BeforeValidator(_min_ready),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": _MOST},
                {"type": "string", "pattern": f"^{_SHARE.pattern}$", "examples": ["50%"]},
            ]
        }
    ),
]


def least_ready(wanted: int | str, backends: int) -> int:
    """The number of ``backends`` that `min_ready: wanted` asks for; a share is rounded up."""
    if isinstance(wanted, str):
        return -(-backends * int(wanted.rstrip("%")) // 100)
    return wanted


def _one_of_both(value: Any, _handler: ValidatorFunctionWrapHandler) -> Any:
    """Validates each form by itself, so that an error is about the form that was used."""
    if isinstance(value, BackendSource):
        return value
    if isinstance(value, dict):
        return BackendSource.model_validate(value)
    return _LISTED.validate_python(value)


BackendsOrSource = Annotated[Backends | BackendSource, WrapValidator(_one_of_both)]
