"""The base class of all sections of the configuration file.

Lives here: ``Section`` and the types of durations.
Rules: has no section itself, so that every module with sections can import it. No I/O.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

#: whole seconds, for durations of minutes and hours
Seconds = Annotated[int, Field(ge=1, le=10_000_000)]
#: seconds, possibly with a fraction: intervals, timeouts
Duration = Annotated[float, Field(ge=0.1, le=86_400)]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True)
