"""Tests of ``paraglider.forward.nat.method``: what it says of itself and of a service."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.nat.method import NatMethod


class TestNatMethod(MethodFacts):
    """The values of ``forward: nat``."""

    method = NatMethod()
    work = (True, False, False, True)
    addresses = (True, False, False)
    options = frozenset({"return"})
    described = (
        ({}, "every packet passes a worker and is rewritten, both ways", "needs nf_conntrack"),
        ({"return": "direct"}, "replies go past this host", "both ways"),
    )
    needs = (
        ({}, "route", "have to pass the balancer"),
        ({"return": "direct"}, "rewrite", "straight to the client"),
    )
    answers = (({}, "via", True), ({"return": "direct"}, "direct", False))
