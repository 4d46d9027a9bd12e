"""What a service's `forward` means for it, in one sentence: for `paraglider check`.

Lives here: ``meaning``.
Rules: says what follows from this service's own words, cost and needs included, and no more.
Pure.
"""

from __future__ import annotations

from paraglider.config.model import Service


def meaning(service: Service) -> str:
    """One sentence about how the packets of ``service`` travel, and what that takes."""
    words = {"nat": _nat, "offload": _offload, "dsr": _dsr, "proxy": _proxy}[service.forward]
    return f"{service.forward}: {words(service)}"


def _nat(service: Service) -> str:
    if service.return_ == "direct":
        return (
            "every packet of the client passes a worker and is rewritten, replies go past this"
            " host; the backends must answer as the VIP (`paraglider backend-setup`); needs"
            " NFQUEUE, no conntrack."
        )
    return (
        "every packet passes a worker and is rewritten, both ways, so a core sets the limit; the"
        " backends see the client's address and must answer through this host; needs NFQUEUE, no"
        " conntrack."
    )


def _offload(service: Service) -> str:
    source = (
        f"the backends see {service.snat}"
        if service.snat is not None
        else "the backends see the client's address and must answer through this host"
    )
    parts = [
        "a worker decides about the first packet, the kernel carries the rest at its own speed",
        source,
        "needs NFQUEUE, nf_conntrack and nft",
    ]
    if service.counted:
        parts.append("live flows are counted by conntrack's events")
    if service.affinity == "client":
        parts.append("a client is kept from its last new connection on")
    return "; ".join(parts) + "."


def _dsr(_service: Service) -> str:
    return (
        "a worker decides about a flow's first packets and now and then again, policy routing sends"
        " what the client sends on unchanged, answers go past this host; the backends see the"
        " client's address, must be this host's neighbours and hold the VIP without answering for"
        " it; needs NFQUEUE and policy routing, nft for speed, no conntrack."
    )


def _proxy(service: Service) -> str:
    source = (
        "are told the client's address by the PROXY protocol"
        f" {service.proxy_protocol}, which they must expect"
        if service.proxy_protocol is not None
        else "see this host's address"
    )
    return (
        "TCP ends here and a worker carries the bytes on, so a core sets the limit; a backend that"
        f" refuses is passed over; the backends need no route and {source};"
        " needs no kernel feature."
    )
