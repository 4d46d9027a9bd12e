"""The table of a host that `start` set up; its data is tested end to end."""

from __future__ import annotations

from paraglider.cli.show_static import listing
from paraglider.host.static_status import StaticBackend, StaticService


def test_the_table_is_shaped_like_that_of_ipvsadm() -> None:
    """Addresses as they are, brackets too; a service's sums above its backends' counts."""
    backends = (
        StaticBackend("fd00::1", 8080, 3, 0.75, 2, 10, 1000, 8, 90000),
        StaticBackend("fd00::2", None, 1, 0.25, 1, 5, 500, 4, 40000),
    )
    service = StaticService("web", "2001:db8::11", "any", "", "wrr", "client", backends)
    shown = [" ".join(text.plain.split()) for text in listing([service]).texts(200)]
    assert shown == [
        "Service → backend Weight Share Conns InPkts OutPkts InBytes OutBytes",
        "web [2001:db8::11]:* any wrr, a client keeps its backend",
        "all 3 15 12 1500 130000",
        "→ [fd00::1]:8080 3 75.0% 2 10 8 1000 90000",
        "→ fd00::2 1 25.0% 1 5 4 500 40000",
    ]
    narrow = [text.plain for text in listing([service]).texts(30)]
    assert narrow[0] == "Service → backend  Weight"
    assert narrow[-1] == "  → fd00::2             1"
