"""What routers are told: of real daemons that are killed, drained, reloaded, by the announcer.

ExaBGP is the test: it starts `paraglider announce --exabgp` with pipes, and reads its lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
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
    """The announcer of ``running``: the lines that it has said."""

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
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._said.append(line.decode().rstrip("\n"))

    def said(self, *lines: str) -> None:
        """It says ``lines`` next, in some order, and nothing else."""
        wait_until(lambda: len(self._said) >= len(lines), self.log.read_text)
        found, self._said = self._said, []
        assert sorted(found) == sorted(lines), self.log.read_text()

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


def test_what_routers_are_told(shared: Shared, ask: Any) -> None:
    """A foreign VIP's dead pool and a replaced http process: nothing. A drain, a kill -9: of both
    VIPs; a killed daemon is missed by its socket, before its silence is noticed. The VIPs are on
    loopback, and are served there.
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
        log = announcer.log.read_text
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
        for state, lines in (("drain", drained), ("ready", BOTH)):
            control(running).post("node", {"state": state})
            announcer.said(*lines)
        running.stop(signal.SIGKILL)
        announcer.said(*WITHDRAWN)
        assert 'event="the daemon is gone" why="no paraglider answers at' in log()
        assert "no sign of life" not in log()
        running.start()
        announcer.said(*BOTH)
        announcer.end()
        announcer.said(*WITHDRAWN)
    running.undo()
    assert "192." not in running.namespace.run(["ip", "address", "show", "dev", "lo"]).stdout
