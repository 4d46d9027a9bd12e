"""What routers are told: of real daemons that are killed, drained, reloaded, by the announcer.

ExaBGP is the test: it starts `paraglider announce --exabgp` with pipes, and reads its lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from failing import control
from processes import children
from services import http_service
from sharing import Shared
from waiting import wait_until

from paraglider.lab.balancer import LabBalancer
from paraglider.lab.topology import VIP, backend_address

pytestmark = pytest.mark.root

#: seconds in which routers know that a daemon was killed, or of a change of its state
AT_ONCE = 0.5
#: tries, on a machine that may be busy for longer than that
TRIES = 5
FOUR = f"route {VIP[4]}/32 next-hop self"
SIX = f"route {VIP[6]}/128 next-hop self"
BOTH = [f"announce {FOUR} med 100", f"announce {SIX} med 100"]
WORSE = "med 1000 community [ 65535:0 ]"
WITHDRAWN = [f"withdraw {FOUR}", f"withdraw {SIX}"]


@pytest.fixture(scope="module")
def shared(sharing: Any) -> Shared:
    """The network, with nginx in the backends."""
    made: Shared = sharing()
    made.serve(udp=())
    return made


class Announcer:
    """The announcer of ``running``: the lines that it has said, and when."""

    def __init__(self, running: LabBalancer) -> None:
        program = [sys.executable, "-m", "paraglider", "-c", str(running.config)]
        self.log = running.config.with_name("announcer.log")
        with self.log.open("wb") as log:
            self.popen = running.namespace.popen(
                [*program, "announce", "--exabgp"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._said: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._said.append((time.monotonic(), line.decode().rstrip("\n")))

    def said(self, *lines: str) -> float:
        """It says ``lines`` next, in some order, and nothing else; returns when it had."""
        wait_until(lambda: len(self._said) >= len(lines), self.log.read_text)
        found, self._said = self._said, []
        assert sorted(line for _, line in found) == sorted(lines), self.log.read_text()
        return max((at for at, _ in found), default=0.0)

    def end(self) -> None:
        """SIGTERM: it withdraws everything, and ends well."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(60) == 0, self.log.read_text()
        self._reader.join()


@contextmanager
def announcing(running: LabBalancer) -> Iterator[Announcer]:
    """The announcer of ``running``."""
    announcer = Announcer(running)
    try:
        yield announcer
    finally:
        announcer.popen.kill()
        announcer.popen.wait()
        announcer._reader.join()


def told_at_once(announcer: Announcer, act: Any, back: Any, lines: list[str]) -> None:
    """``act`` has ``lines`` said at once; ``back`` has both VIPs announced again. The first try
    that is quick enough will do.
    """
    took = []
    for _ in range(TRIES):
        begun = time.monotonic()
        act()
        took.append(announcer.said(*lines) - begun)
        back()
        announcer.said(*BOTH)
        if took[-1] < AT_ONCE:
            return
    pytest.fail(f"told after {took} s")


def test_what_routers_are_told(shared: Shared, ask: Any) -> None:
    """A foreign VIP's dead pool and a replaced http process: nothing. A drain, a kill -9: at once,
    of both VIPs. The VIPs are on loopback, and are served there.
    """
    text = shared.config(
        *(http_service(family, **{"return": "via"}) for family in (4, 6)),
        announce={"vips": "all", "rise": 0},
        control={"socket": str(shared._directory / "control.sock"), "announcer": "root"},
    )
    running = shared.balancer(text, apart=True, trouble=True)
    addresses = running.namespace.run(["ip", "address", "show", "dev", "lo"]).stdout
    assert f"inet {VIP[4]}/32 " in addresses
    assert f"inet6 {VIP[6]}/128 " in addresses
    with announcing(running) as announcer:
        announcer.said(*BOTH)
        for state, line in (("maint", f"announce {SIX} {WORSE}"), ("ready", BOTH[1])):
            for number in (1, 2, 3):
                control(running).set_backend("web6", backend_address(6, number), state=state)
            announcer.said(line)
        assert sum(ask(shared.net, "tcp", VIP[4], 80, 9).values()) == 9
        before = children(running)["paraglider/http"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: children(running).get("paraglider/http", before) != before)
        drained = [f"announce {FOUR} {WORSE}", f"announce {SIX} {WORSE}"]
        told_at_once(
            *(announcer, lambda: control(running).post("node", {"state": "drain"})),
            *(lambda: control(running).post("node", {"state": "ready"}), drained),
        )
        told_at_once(
            *(announcer, lambda: running.stop(signal.SIGKILL), running.start, WITHDRAWN),
        )
        announcer.end()
        announcer.said(*WITHDRAWN)
    running.undo()
    assert "192." not in running.namespace.run(["ip", "address", "show", "dev", "lo"]).stdout
