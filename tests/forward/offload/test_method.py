"""Tests of ``paraglider.forward.offload.method``: its facts and descriptions."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.offload.method import OffloadMethod


class TestOffloadMethod(MethodFacts):
    """The values of ``forward: offload``."""

    method = OffloadMethod()
    work = (True, False, True, False)
    addresses = (True, False, False)
    options = frozenset({"snat", "adopt"})
    described = (
        ({}, "the kernel carries the rest at its own speed", "events"),
        ({}, "needs NFQUEUE, nf_conntrack and nft", "last new connection"),
        ({}, "see the client's address", "10.0.0.9"),
        ({"snat": "10.0.0.9"}, "see 10.0.0.9", "the client's address"),
        ({"snat": "10.0.0.9", "strategy": "maglev"}, "are reset, because of `snat`", "events"),
        ({"snat": "10.0.0.9"}, "see 10.0.0.9", "are reset"),
        ({"strategy": "maglev"}, "continue here, and", "are reset"),
        ({"strategy": "maglev", "adopt": "never"}, "the client's address", "continue here"),
        ({"strategy": "rr"}, "the client's address", "continue here"),
        ({"strategy": "weighted"}, "counted by conntrack's events", "kept"),
        ({"strategy": "a.b:C"}, "counted by conntrack's events", "kept"),
        ({"affinity": "client"}, "from its last new connection", "events"),
    )
    needs = (
        ({}, "route", "have to pass the balancer"),
        ({"snat": "10.0.0.9"}, "nothing", "the balancer's 10.0.0.9"),
    )
    answers = (({}, "via", True), ({"snat": "10.0.0.9"}, "via", True))
