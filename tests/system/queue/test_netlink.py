"""The netlink I/O where it differs from the suite that every I/O passes: see ``test_base``."""

from __future__ import annotations

import pytest

from paraglider.errors import PlatformError
from paraglider.system.queue import netlink


def test_a_kernel_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_NET_ADMIN or NFQUEUE the message names the queue and what is needed."""

    class Refusing:
        """A socket whose kernel says EPERM to everything."""

        def __init__(self, *_: object) -> None:
            self.closed = False

        def bind(self, _address: object) -> None:
            raise PermissionError(1, "Operation not permitted")

        def close(self) -> None:
            self.closed = True

    monkeypatch.setattr(netlink, "require_free", lambda _numbers: None)
    monkeypatch.setattr(netlink.socket, "socket", Refusing)
    with pytest.raises(PlatformError, match="queue 3: Operation not permitted; see that it has"):
        netlink.NetlinkQueueIO(3, 100)
