"""Configuration files, read with the forwarding methods known.

Lives here: what ``config.load`` offers, under the name that everybody above ``config`` imports it
by: importing it from here registers the methods first (``forward.registry``).
"""

from __future__ import annotations

import paraglider.forward.registry  # noqa: F401 registers the methods
from paraglider.config.load import (
    SEARCHED,
    LoadedConfig,
    accepted,
    find_config,
    load,
    load_with_marks,
    parse,
)

__all__ = [
    "SEARCHED",
    "LoadedConfig",
    "accepted",
    "find_config",
    "load",
    "load_with_marks",
    "parse",
]
