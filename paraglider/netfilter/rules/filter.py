"""The filter rules that accept balanced packets and drop ICMP redirects.

Lives here: ``accept_table`` and ``no_redirects``, the parts of ``filter`` that forwarding methods
and ``paraglider start`` have in common.
Rules: pure.
"""

from __future__ import annotations

from paraglider.netfilter.rules.matches import ICMP
from paraglider.netfilter.rules.ruleset import Chain, Table

_REDIRECT = {4: 5, 6: 137}  # RFC 792; RFC 4861, 4.5


def accept_table(rules: tuple[str, ...]) -> Table:
    """The part of ``filter`` that evaluates ``rules`` before the host's rules."""
    accept = Chain(
        "PARAGLIDER-ACCEPT", "balanced packets pass, whatever the policy of FORWARD", rules
    )
    return Table("filter", (accept,), jumps=(("FORWARD", accept.name),))


def no_redirects(family: int) -> Table:
    """The part of ``filter`` that drops the host's ICMP redirects.

    If packets leave on the link on which they arrived, the kernel sends a redirect to the direct
    route, which bypasses the balancer. IPv6 has no parameter for this (Linux,
    net/ipv6/ip6_output.c: ip6_forward), and that of IPv4 is not writable in every container. All
    redirects are dropped, as the parameter does, because their destination may be any client.
    """
    redirects = Chain(
        "PARAGLIDER-REDIRECT",
        "no ICMP redirect leads around the balancer",
        (f"{ICMP[family]} {_REDIRECT[family]} -j DROP",),
    )
    return Table("filter", (redirects,), jumps=(("OUTPUT", redirects.name),))
