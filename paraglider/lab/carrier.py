"""The carrier of the lab's flows, from the daemon's answer to ``paraglider carrier``.

Lives here: ``refuse``, ``counted``, ``described``, ``faults_of``.
Rules: pure; ``counted`` waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from paraglider.config.service import METHODS
from paraglider.errors import OperatorError

#: most further readings of the counters, and seconds between two
LOOKS: Final = 10
PAUSE: Final = 0.3


def refuse(forward: str, carrier: str | None, *, chooses: bool) -> None:
    """Raise ``OperatorError`` for a ``carrier`` that ``forward`` does not have; ``chooses``: it has
    several.
    """
    if carrier is not None and not chooses:
        takers = [name for name, method in METHODS.items() if "carrier" in method.options]
        raise OperatorError(
            f"--carrier has no meaning with --forward {forward}",
            f"leave it out, or use --forward {' or '.join(takers)}",
        )
    if carrier == "xdp" and not METHODS[forward].at_xdp:
        raise OperatorError(
            f"--forward {forward} is carried at tc, not at XDP", "use --carrier bpf"
        )


def counted(
    read: Callable[[], dict[str, Any]],
    wanted: str | None,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any]:
    """The answer of ``read``, again until it has no fault, LOOKS times at most: the daemon's
    counters of the kernel may be a second old.
    """
    found = read()
    for _ in range(LOOKS):
        if not faults_of(found, wanted):
            break
        sleep(PAUSE)
        found = read()
    return found


def described(found: Mapping[str, Any]) -> str:
    """The answer ``found`` in one line."""
    reason = f" ({found['reason']})" if found["reason"] else ""
    carried = found["packets"].get("carried", 0) + found["packets"].get("xdp", 0)
    at = f" at {', '.join(found['devices'])}: {carried:,} packets" if found["on"] else ""
    return f"Flows are carried by {found['carrier']}{at}{reason}"


def faults_of(found: Mapping[str, Any], wanted: str | None) -> list[str]:
    """The faults of the answer ``found``, if the operator wants the carrier ``wanted``."""
    carrier = found["carrier"]
    if wanted in ("bpf", "xdp", "worker") and carrier != wanted:
        return [f"flows are carried by {carrier}, not by {wanted}"]
    if carrier == "bpf" and not found["packets"].get("carried"):
        return ["BPF carried no packet"]
    if carrier == "xdp" and not found["packets"].get("xdp"):
        return ["the program at XDP carried no packet"]
    return []
