"""The base class of all sections of the configuration file.

Lives here: ``Section`` and the types of durations.
Rules: has no section itself, so that every module with sections can import it. No I/O.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from paraglider.config import durations

_LONGEST: Final = 10_000_000
_DAY: Final = 86_400


def duration_schema(kind: str, least: float, most: float) -> dict[str, Any]:
    """The JSON Schema of a duration: a number of seconds (`integer` or `number`) from ``least`` to
    ``most``, or a text.
    """
    return {"anyOf": [{"type": kind, "minimum": least, "maximum": most}, durations.SCHEMA]}


SECONDS_SCHEMA: Final = duration_schema("integer", 1, _LONGEST)
#: whole seconds, for durations of minutes and hours
Seconds = Annotated[
    int,
    Field(ge=1, le=_LONGEST),
    BeforeValidator(durations.parse_whole),
    WithJsonSchema(SECONDS_SCHEMA),
]
#: seconds, possibly with a fraction: intervals, timeouts
Duration = Annotated[
    float,
    Field(ge=0.1, le=_DAY),
    BeforeValidator(durations.parse_duration),
    WithJsonSchema(duration_schema("number", 0.1, _DAY)),
]
#: as ``Duration``, or 0 for none
DurationOrZero = Annotated[
    float,
    Field(ge=0, le=_DAY),
    BeforeValidator(durations.parse_duration),
    WithJsonSchema(duration_schema("number", 0, _DAY)),
]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True)
