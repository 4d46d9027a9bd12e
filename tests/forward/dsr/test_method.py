"""Tests of ``paraglider.forward.dsr.method``: its facts and descriptions."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.dsr.method import DsrMethod


class TestDsrMethod(MethodFacts):
    """The values of ``forward: dsr``."""

    method = DsrMethod()
    work = (True, False, False, True)
    addresses = (False, True, False)
    options = frozenset({"return", "carrier", "decide", "adopt"})
    described = (
        (
            {"carrier": "worker"},
            "policy routing sends the client's packets on unchanged; answers bypass this host",
            "BPF",
        ),
        ({"carrier": "worker"}, "policy routing, nft for speed, no conntrack", "rewritten"),
        ({"carrier": "bpf"}, "a BPF program in the kernel sends the client's others on", "nft"),
        (
            {"decide": "auto"},
            "picks the backend and sends the client's packets on unchanged, by a table",
            "hash",
        ),
        (
            {"decide": "auto", "affinity": "client"},
            "first packets (`affinity: client`: a worker has the clients' backends), and a BPF",
            "hash",
        ),
        (
            {"carrier": "auto"},
            "a worker decides about a flow's first packets, and a BPF",
            "`decide",
        ),
        (
            {"decide": "hash", "strategy": "maglev"},
            "sends each packet unchanged to the backend of its hash, without flows",
            "a worker decides",
        ),
        ({"carrier": "auto"}, "policy routing, Linux 6.6 with BPF or nft for speed, no", "again"),
    )
    needs = (
        ({}, "loopback", "the VIP as their destination"),
        ({"return": "direct"}, "loopback", "without telling its neighbours"),
    )
    answers = (({}, "direct", False), ({"return": "direct"}, "direct", False))
