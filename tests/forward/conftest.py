"""Makes ``packets`` and ``icmp_packets``, the builders of tests/core, importable by their names."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))
