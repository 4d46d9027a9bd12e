"""Properties of the NetfilterQueue binding only; see ``test_base`` for the common suite."""

from __future__ import annotations

import os
from typing import Any

import prctl
import pytest

from paraglider.errors import PlatformError
from paraglider.netfilter.queue import open_queue
from paraglider.netfilter.queue.base import LONGEST_PACKET
from paraglider.netfilter.queue.netfilterqueue import NetfilterQueueIO
from paraglider.netfilter.queue.proc import queue_status

pytestmark = pytest.mark.root

NUMBER = 9


def test_the_kernel_copies_whole_packets(loopback: Any) -> None:
    """The binding's copy range of 4,016 bytes is raised to the maximum."""
    queue = NetfilterQueueIO(NUMBER, 100)
    try:
        assert queue_status()[NUMBER].copy_range == LONGEST_PACKET
    finally:
        queue.close()


def test_without_the_capability(loopback: Any) -> None:
    """A process without CAP_NET_ADMIN gets the platform's refusal, with a remedy."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            prctl.cap_effective.net_admin = False
            open_queue("netfilterqueue", NUMBER, 100)
        except PlatformError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        message = pipe.read().decode()
    assert message.startswith(f"the kernel refuses queue {NUMBER}: ")
    assert "CAP_NET_ADMIN" in message


def test_a_refused_bind_leaves_no_socket(loopback: Any) -> None:
    """Opening a queue and closing it, again and again, leaves no descriptor behind."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the count is the point
    for _ in range(20):
        NetfilterQueueIO(NUMBER, 100).close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
