"""The examples in ``conf/``: those of Paraglider's own configuration, and other programs' files.

Importable by its name, as ``waiting`` is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

CONF: Final = Path(__file__).resolve().parents[1] / "conf"
#: files of ExaBGP, BIRD, FRR, keepalived and conntrackd
FOREIGN: Final = frozenset(
    {
        *("bird.conf", "bird-router.conf", "conntrackd.conf", "exabgp.conf", "frr.conf"),
        *("keepalived.conf", "keepalived-routed.conf"),
    }
)
EXAMPLES: Final = sorted(file for file in CONF.glob("*.conf") if file.name not in FOREIGN)
