"""The carrier of the lab's flows, from the daemon's answer to ``paraglider carrier``.

Lives here: ``described``, ``faults_of``.
Rules: pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def described(found: Mapping[str, Any]) -> str:
    """The answer ``found`` in one line."""
    reason = f" ({found['reason']})" if found["reason"] else ""
    carried = found["packets"].get("carried", 0) + found["packets"].get("xdp", 0)
    at = f" at {', '.join(found['devices'])}: {carried:,} packets" if found["on"] else ""
    return f"Flows are carried by {found['carrier']}{at}{reason}"


def faults_of(found: Mapping[str, Any], wanted: str | None) -> list[str]:
    """The faults of the answer ``found``, if the operator wants the carrier ``wanted``."""
    carrier = found["carrier"]
    if wanted in ("bpf", "worker") and carrier != wanted:
        return [f"flows are carried by {carrier}, not by {wanted}"]
    if carrier == "bpf" and not found["packets"].get("carried"):
        return ["BPF carried no packet"]
    return []
