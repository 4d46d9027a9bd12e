"""The base class of methods whose backends have the VIP: only the clients' packets pass this host.

Lives here: ``OneSidedMethod``; ``carried``, which describes its carrier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from paraglider.config.deciding import exceptions, kernel_decides, why_python
from paraglider.forward.base import ForwardMethod

if TYPE_CHECKING:
    from paraglider.config.model import Service


class OneSidedMethod(ForwardMethod):
    """A method with one-sided flows (``forward.one_sided``), kept in a journal."""

    queued = True
    journalled = True
    owns_vip = False

    def answers(self, service: Service) -> Literal["via", "direct"]:
        """See ``Method``: always direct."""
        return "direct"


def carried(service: Service, leaves: str, otherwise: str) -> str:
    """What sends the packets of ``service`` on: how a packet ``leaves``, and what the workers do
    without BPF (``otherwise``).
    """
    if kernel_decides(service):
        to = (
            f"sends each packet {leaves} to the backend of its hash, without flows,"
            if service.decide == "hash"
            else f"picks the backend and sends the client's packets on {leaves},"
        )
        return (
            f"a BPF program in the kernel {to} by a table that a worker computes;"
            f" {exceptions(service)}"
        )
    if service.wants_bpf:
        why = f" ({why_python(service)})" if service.decide != "python" else ""
        return (
            f"a worker decides about a flow's first packets{why}, and a BPF program in the kernel"
            f" sends the client's others on {leaves}; {exceptions(service)}"
        )
    return otherwise
