"""A lab whose backends answer the client directly: its results are measured."""

from __future__ import annotations

import pytest

from paraglider.errors import PlatformError
from paraglider.lab.balancer import start_backend
from paraglider.lab.direct import SIZE, SPARE, DirectDownload, download
from paraglider.lab.topology import VIP, Plan, Topology


@pytest.mark.parametrize(
    ("found", "faults"),
    [
        (DirectDownload(2 * SIZE, 0), 0),
        (DirectDownload(2 * SIZE, SPARE), 0),
        (DirectDownload(2 * SIZE, SPARE + 1), 1),
        (DirectDownload(SIZE, 0), 1),
        (DirectDownload(SIZE, SIZE), 2),
    ],
)
def test_what_is_wrong(found: DirectDownload, faults: int) -> None:
    """Too few bytes, or bytes that passed the balancer."""
    assert len(found.faults()) == faults


@pytest.mark.root
def test_answers_by_way_of_the_balancer_are_seen() -> None:
    """If the balancer itself serves the VIP, all bytes are counted on it; without a server the
    error names the URL.
    """
    with Topology(Plan(backends=1, vips=tuple(f"{vip}" for vip in VIP.values()))) as net:
        with pytest.raises(PlatformError, match="http://192.168.0.11:80/bytes/4000000: "):
            download(net, 80)
        start_backend(net.balancer, "itself")
        found = download(net, 80)
    assert found.got == 2 * SIZE
    assert found.sent > 2 * SIZE
    assert len(found.faults()) == 1
