"""Tests of ``paraglider.forward.proxy.method``: its facts and descriptions."""

from __future__ import annotations

from facts import MethodFacts

from paraglider.forward.proxy.method import ProxyMethod


class TestProxyMethod(MethodFacts):
    """The values of ``forward: proxy``."""

    method = ProxyMethod()
    work = (False, True, False, False)
    addresses = (True, False, True)
    options = frozenset({"proxy_protocol", "route"})
    described = (
        ({}, "see this host's address", "PROXY protocol"),
        ({"proxy_protocol": "v2"}, "by the PROXY protocol v2", "this host's"),
        (
            {"route": {"service": "web", "sni": ["*.a", "b"], "alpn": ["h2"]}},
            "TLS connections to `web` for *.a, b with h2; the backends see this host's address.",
            "TCP ends",
        ),
    )
    needs = (
        ({}, "nothing", "connects by itself"),
        ({"proxy_protocol": "v2"}, "nothing", "understand PROXY protocol v2"),
    )
    answers = (({}, "via", False), ({"proxy_protocol": "v2"}, "via", False))
