"""Tests of ``paraglider.forward.dsr.method``: what it says of itself and of a service."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.dsr.method import DsrMethod


class TestDsrMethod(MethodFacts):
    """The values of ``forward: dsr``."""

    method = DsrMethod()
    work = (True, False, False, True)
    addresses = (False, True, False)
    options = frozenset({"return"})
    described = (({}, "policy routing sends what the client sends on unchanged", "rewritten"),)
    needs = (
        ({}, "loopback", "the VIP as their destination"),
        ({"return": "direct"}, "loopback", "without telling its neighbours"),
    )
    answers = (({}, "direct", False), ({"return": "direct"}, "direct", False))
