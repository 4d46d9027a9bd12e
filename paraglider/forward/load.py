"""Configuration files, read with the forwarding methods known.

Lives here: the functions of ``config.load``; packages above ``config`` import them from here, which
registers the methods first (``forward.registry``).
"""

from __future__ import annotations

import paraglider.forward.registry  # noqa: F401 registers the methods
from paraglider.config.load import (
    LoadedConfig,
    accepted,
    load,
    load_with_marks,
    loading,
    parse,
)

__all__ = [
    "LoadedConfig",
    "accepted",
    "load",
    "load_with_marks",
    "loading",
    "parse",
]
