"""Properties of the netlink I/O only; see ``test_base`` for the common suite."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.errors import OperatorError, PlatformError
from paraglider.netfilter import queue
from paraglider.netfilter.queue import netlink


def test_a_kernel_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CAP_NET_ADMIN or NFQUEUE the message names the queue and the remedy."""

    class Refusing:
        """A socket whose kernel answers EPERM to all requests."""

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


def test_auto_takes_the_fastest_that_the_kernel_lets_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``auto`` is netlink, or the binding if the kernel refuses netlink's settings."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def opener(name: str, *, refuse: bool = False) -> Any:
        def open_it(*arguments: object) -> str:
            asked.append((name, arguments))
            if refuse:
                raise PlatformError("no NFQA_CFG_F_GSO here")
            return name

        return open_it

    both = {"netlink": opener("netlink"), "netfilterqueue": opener("netfilterqueue")}
    monkeypatch.setattr(queue, "QUEUES", both)
    assert queue.open_queue("auto", 1, 10, 128, True) == "netlink"
    both["netlink"] = opener("netlink", refuse=True)
    assert queue.open_queue("auto", 1, 10, 128, True) == "netfilterqueue"
    assert [name for name, _ in asked] == ["netlink", "netlink", "netfilterqueue"]
    assert {arguments for _, arguments in asked} == {(1, 10, 128, True, True)}
    with pytest.raises(PlatformError):
        queue.open_queue("netlink", 1, 10)


def test_auto_does_not_hide_a_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue with another reader raises the error; the other I/O is not tried."""

    def taken(*_: object) -> Any:
        raise OperatorError("queue 1 already has a reader")

    monkeypatch.setattr(queue, "QUEUES", {"netlink": taken, "netfilterqueue": taken})
    with pytest.raises(OperatorError, match="already has a reader"):
        queue.open_queue("auto", 1, 10)
