"""conntrackd's configuration in the lab, and its processes."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paraglider.errors import PlatformError
from paraglider.lab import conntrackd
from paraglider.lab.conntrackd import Conntrackd, conntrackd_configuration
from paraglider.netfilter.conntrack import Conntrack

EXAMPLE = Path(__file__).parents[2] / "conf" / "conntrackd.conf"
#: keys whose values are the host's own
OWN = ("IPv4_", "IPv6_", "Path", "LockFile", "LogFile", "Syslog")


def settings(text: str) -> list[str]:
    """The lines without comments; of those that differ between hosts the key."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    lines = [line.partition(" ")[0] if line.startswith(OWN) else line for line in lines]
    return sorted(filter(None, lines))


def test_it_is_the_shipped_example(tmp_path: Path) -> None:
    """But for addresses and files."""
    text = conntrackd_configuration(1, tmp_path)
    assert settings(text) == settings(EXAMPLE.read_text(encoding="utf-8"))


def test_each_sends_to_the_other(tmp_path: Path) -> None:
    """By the backends' network; what is the balancer's own is not told."""
    for number, other in ((1, 2), (2, 1)):
        text = conntrackd_configuration(number, tmp_path)
        assert f"IPv4_address 10.0.0.20{number}\n        IPv4_Destination_Address" in text
        assert f"IPv4_Destination_Address 10.0.0.20{other}\n" in text
        ignored = text[text.index("Address Ignore") :]
        for address in ("192.168.0.{}", "10.0.0.20{}", "2001:db8::{}", "fd00:10::20{}"):
            assert f"_address {address.format(number)}\n" in ignored
        assert f"Path {tmp_path}/conntrackd.ctl" in text


class Host:
    """A member, its namespace and its process, which answers with ``codes``."""

    number = 2
    name = "lb2"

    def __init__(self, directory: Path, *codes: int) -> None:
        self.directory = directory
        self.host = self
        self.done: list[str] = []
        self._codes = list(codes)

    def popen(self, command: list[str], **_: Any) -> Host:
        """A process."""
        (self.directory / "conntrackd.lock").touch()
        self.done.append(" ".join(command[:2]))
        return self

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        """A program."""
        return subprocess.CompletedProcess(command, self._codes.pop(0))

    def poll(self) -> int | None:
        """It runs as long as it has codes."""
        return None if self._codes else 1

    def kill(self) -> None:
        """Kill it."""
        self.done.append("kill")

    def wait(self) -> None:
        """It has ended."""

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """In it."""
        self.done.append("entered")
        yield


def test_a_balancer_without_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel forgets all connections, and conntrackd can begin again."""
    forgotten: list[tuple[list[int], int]] = []
    monkeypatch.setattr(Conntrack, "forget", lambda _, marks, mask: forgotten.append((marks, mask)))
    member: Any = Host(tmp_path, 1, 0, 0)
    sync = Conntrackd()
    sync.begin(member)
    sync.cut(member)
    assert member.done == [f"{conntrackd.PROGRAM} -C", "kill", "entered"]
    assert forgotten == [([0], 0)]
    assert not (tmp_path / "conntrackd.lock").exists()
    sync.begin(member)


def test_one_that_does_not_start(tmp_path: Path) -> None:
    """Its end is an error."""
    member: Any = Host(tmp_path, 1)
    with pytest.raises(PlatformError, match="conntrackd in lb2 does not answer; see "):
        Conntrackd().begin(member)
