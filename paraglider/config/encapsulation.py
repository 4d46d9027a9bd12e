"""The section `encapsulation` of a service.

Lives here: ``EncapsulationConfig``.
Rules: as in ``config.model``. No I/O.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from paraglider.config.section import Section
from paraglider.config.types import Port


class EncapsulationConfig(Section):
    """How packets are encapsulated, with `forward: tunnel`."""

    type: Literal["ipip", "gue"] = Field(
        default="ipip", description="ipip: IP in IP, of either family; gue: in UDP too."
    )
    port: Port = Field(default=6080, description="UDP port of the backends, with gue.")

    @property
    def udp_port(self) -> int:
        """The UDP port of the outer header; 0 if it has no UDP."""
        return self.port if self.type == "gue" else 0
