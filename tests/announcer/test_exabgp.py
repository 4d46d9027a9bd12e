"""Tests of ``paraglider.announcer.exabgp``: the lines, and a pipe whose reader is slow or gone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from paraglider.announcer.exabgp import ExabgpOutput, lines
from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig
from paraglider.config.own_address import OwnAddress
from paraglider.config.types import IPAddress
from paraglider.daemon.processes.loop import Loop

FOUR, SIX = ip_address("203.0.113.11"), ip_address("2001:db8::11")
BOTH = ["192.0.2.254", "2001:db8::254"]
FOUR_BY_SELF = "route 203.0.113.11/32 next-hop self"
SIX_BY_OTHER = "route 2001:db8::11/128 next-hop 2001:db8::9"
WORSE = "med 1000 community [ 65535:0 ]"


def config(**keys: object) -> AnnounceConfig:
    """The section with these keys."""
    return AnnounceConfig.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "vip", "route", "expected"),
    [
        ({}, FOUR, "announced", ["announce route 203.0.113.11/32 next-hop self med 100"]),
        ({}, SIX, "withdrawn", ["withdraw route 2001:db8::11/128 next-hop self"]),
        (
            {"neighbors": BOTH, "med": 7},
            FOUR,
            "announced",
            ["neighbor 192.0.2.254 announce route 203.0.113.11/32 next-hop self med 7"],
        ),
        (
            {"neighbors": BOTH[:1], "next_hop": "2001:db8::9"},
            SIX,
            "not-preferred",
            [f"neighbor 192.0.2.254 announce {SIX_BY_OTHER} {WORSE}"],
        ),
        (
            {"prepend": [65001, 65001], "worse_med": 9},
            FOUR,
            "not-preferred",
            [f"announce {FOUR_BY_SELF} med 9 as-path [ 65001 65001 ] community [ 65535:0 ]"],
        ),
    ],
)
def test_what_is_said(
    keys: dict[str, object], vip: IPAddress, route: str, expected: list[str]
) -> None:
    """In ExaBGP's words, to the neighbors of the VIP's family if there are any."""
    assert lines(config(**keys), vip, VipRoute(route)) == expected


def test_the_next_hop_of_this_host() -> None:
    """As found on the interface."""
    own = OwnAddress(interface="eth0", addresses=(ip_interface("192.0.2.9/24"),))
    found = config().model_copy(update={"next_hop": own})
    assert lines(found, FOUR, VipRoute.WITHDRAWN)[0].endswith("next-hop 192.0.2.9")
    assert lines(found, SIX, VipRoute.WITHDRAWN)[0].endswith("next-hop self")


class Pipe:
    """A pipe to ExaBGP, which reads when it is told to."""

    def __init__(self, loop: Loop, **keys: object) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self.loop = loop
        self.output = ExabgpOutput(config(**keys), self.writing)
        self.output.attach(loop)

    def say(self, vip: IPAddress, route: VipRoute) -> None:
        """A route has changed."""
        self.output.say(VipChange(vip, route, "why"))

    def read(self) -> list[str]:
        """The lines that came."""
        data = b""
        while True:
            self.loop.wait(0)
            try:
                data += os.read(self.reading, 1 << 20)
            except BlockingIOError:
                break
        assert not data or data.endswith(b"\n")
        return data.decode().splitlines()

    def close(self) -> None:
        """Close both ends."""
        self.output.close()
        assert os.get_blocking(self.writing)
        os.close(self.writing)
        if self.reading >= 0:
            os.close(self.reading)

    def fill(self) -> None:
        """ExaBGP reads nothing for a long time."""
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"#" * 4096)


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop without signals."""
    with Loop(()) as it:
        yield it


def test_a_reader_that_reads(loop: Loop) -> None:
    """Each change is a line; the same again is none."""
    pipe = Pipe(loop)
    for route in (VipRoute.ANNOUNCED, VipRoute.ANNOUNCED, VipRoute.WITHDRAWN):
        pipe.say(FOUR, route)
    assert [line.split()[0] for line in pipe.read()] == ["announce", "withdraw"]
    assert pipe.output.settled
    assert not pipe.output.broken
    pipe.close()


def test_a_reader_that_does_not_read(loop: Loop) -> None:
    """It is not waited for. When it reads again it is told the newest of each VIP, once."""
    pipe = Pipe(loop)
    pipe.fill()
    vips = [ip_address(f"203.0.113.{number}") for number in range(50)]
    for _ in range(200):
        for vip in vips:
            pipe.say(vip, VipRoute.NOT_PREFERRED)
            pipe.say(vip, VipRoute.ANNOUNCED)
    assert not pipe.output.settled
    assert len(pipe.output._rest) < 200
    os.read(pipe.reading, 1 << 20)
    said = pipe.read()
    assert pipe.output.settled
    # What was begun before stays the first line.
    assert len(said) <= len(vips) + 1
    newest = {line.split()[2]: line for line in said}
    assert len(newest) == len(vips)
    assert all(line.endswith("next-hop self med 100") for line in newest.values())
    pipe.close()


def test_a_reader_that_is_gone(loop: Loop) -> None:
    """Is noticed at once, whether or not there is something to say."""
    quiet, loud = Pipe(loop), Pipe(loop)
    for pipe in (quiet, loud):
        pipe.say(FOUR, VipRoute.ANNOUNCED)
        os.close(pipe.reading)
        pipe.reading = -1
    loud.say(FOUR, VipRoute.WITHDRAWN)
    assert loud.output.broken
    loop.wait(1.0)
    assert quiet.output.broken
    assert quiet.output.settled
    for pipe in (quiet, loud):
        pipe.close()


def test_another_file(loop: Loop) -> None:
    """What is said otherwise now is said again; neighbors that left get a withdrawal."""
    pipe = Pipe(loop, neighbors=BOTH)
    pipe.say(FOUR, VipRoute.ANNOUNCED)
    pipe.say(SIX, VipRoute.WITHDRAWN)
    pipe.read()
    pipe.output.configure(config(neighbors=BOTH))
    assert pipe.read() == []
    pipe.output.configure(config(neighbors=["192.0.2.253", BOTH[1]], med=50))
    assert pipe.read() == [
        "neighbor 192.0.2.254 withdraw route 203.0.113.11/32 next-hop self",
        "neighbor 192.0.2.253 announce route 203.0.113.11/32 next-hop self med 50",
    ]
    pipe.close()


def test_a_file_in_place_of_a_pipe(tmp_path: Path, loop: Loop) -> None:
    """It is written to as any other; no loop could wait for it."""
    with (tmp_path / "out").open("w+") as out:
        output = ExabgpOutput(config(), out.fileno())
        output.attach(loop)
        output.say(VipChange(FOUR, VipRoute.ANNOUNCED, ""))
        output.close()
        assert os.get_blocking(out.fileno())
        assert (tmp_path / "out").read_text().count("\n") == 1
        assert output.poll(0.0) > 1e9
