"""Interfaces on which XDP can run, for tests."""

from __future__ import annotations

import sys
from pathlib import Path

from paraglider.lab.namespace import Namespace

_LINKS = Path(__file__).parent / "net" / "links.py"


def ready_for_xdp(*namespaces: Namespace, tags: bool = False) -> None:
    """Have all links of ``namespaces`` as XDP needs them; ``tags``: but for VLAN tags."""
    for namespace in namespaces:
        more = ["tags"] if tags else []
        namespace.run([sys.executable, str(_LINKS), "xdp", *more])
