"""Tests of ``paraglider.forward.nat.method``: its facts and descriptions."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.nat.method import NatMethod


class TestNatMethod(MethodFacts):
    """The values of ``forward: nat``."""

    method = NatMethod()
    work = (True, False, False, True)
    addresses = (True, False, False)
    options = frozenset({"return", "carrier", "decide", "adopt"})
    described = (
        ({}, "Linux 6.6 with BPF, or the worker rewrites every packet", "needs nf_conntrack"),
        ({"return": "direct"}, "replies bypass this host", "both ways"),
        (
            {"carrier": "bpf", "decide": "auto"},
            "a BPF program in the kernel picks the backend and rewrites the packets, both ways",
            "or the",
        ),
        (
            {"carrier": "bpf"},
            "first packets (`decide: python`), and a BPF program in the kernel rewrites",
            "picks",
        ),
        ({"carrier": "auto"}, "Linux 6.6 with BPF, or the worker rewrites every packet", "a core"),
        (
            {"carrier": "worker"},
            "every packet passes a worker and is rewritten, both ways, so a core sets the limit",
            "BPF",
        ),
        ({"carrier": "auto", "return": "direct"}, "rewrites the others; exceptions", "both ways"),
    )
    needs = (
        ({}, "route", "have to pass the balancer"),
        ({"return": "direct"}, "rewrite", "directly to the client"),
    )
    answers = (({}, "via", True), ({"return": "direct"}, "direct", False))
