"""What the packet filter lets pass, and what it keeps the host from sending.

Lives here: ``accept_table`` and ``no_redirects``, the parts of ``filter`` that forwarding methods
and ``paraglider start`` have in common. Rules: pure.
"""

from __future__ import annotations

from paraglider.netfilter.rules.matches import ICMP
from paraglider.netfilter.rules.ruleset import Chain, Table

_REDIRECT = {4: 5, 6: 137}  # RFC 792; RFC 4861, 4.5


def accept_table(rules: tuple[str, ...]) -> Table:
    """The part of ``filter`` that has ``rules`` decide ahead of the host's own."""
    accept = Chain(
        "PARAGLIDER-ACCEPT", "balanced packets pass, whatever the policy of FORWARD", rules
    )
    return Table("filter", (accept,), jumps=(("FORWARD", accept.name),))


def no_redirects(family: int) -> Table:
    """The part of ``filter`` by which the host sends no ICMP redirects.

    Where packets of a backend or a client come in and go on by one link the kernel would tell of
    the shorter way, past the balancer. IPv6 has no parameter against it (Linux,
    net/ipv6/ip6_output.c: ip6_forward); that of IPv4 cannot be written in every container. It is
    all redirects, as with the parameter: their destination may be any client.
    """
    redirects = Chain(
        "PARAGLIDER-REDIRECT",
        "nobody is told of a way past the balancer",
        (f"{ICMP[family]} {_REDIRECT[family]} -j DROP",),
    )
    return Table("filter", (redirects,), jumps=(("OUTPUT", redirects.name),))
