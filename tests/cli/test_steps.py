"""From a plan to what is printed of it, on a host made of air."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from paraglider.cli import steps
from paraglider.config.model import Config
from paraglider.host.changes.links import AddressChange
from paraglider.host.state import StateFile
from paraglider.host.step import Step

BOTH = frozenset({4, 6})
CONFIG = Config.model_validate(
    {
        "services": [
            {
                "name": "web",
                "vip": "192.168.0.11/24",
                "protocol": "tcp",
                "forward": "offload",
                "snat": "10.0.0.254",
                "backends": ["10.0.0.1"],
            }
        ]
    }
)


class Address(AddressChange):
    """An address that no interface gets."""

    def apply(self, host: Any) -> None:
        """Nothing."""

    def revert(self, host: Any) -> None:
        """Nothing."""


class Net:
    """A host without addresses, as far as it is asked."""

    def interfaces(self) -> list[str]:
        """None."""
        return []


class Host:
    """A host with just that."""

    netlink = Net()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[str]:
    """The owners of the states that were asked for; no lock is held, no host is touched."""
    owners: list[str] = []

    @contextmanager
    def unlocked() -> Iterator[None]:
        yield

    def state(owner: str) -> StateFile:
        owners.append(owner)
        return StateFile(tmp_path, 1, owner)

    monkeypatch.setattr(steps, "in_turn", unlocked)
    monkeypatch.setattr(steps, "Host", Host)
    monkeypatch.setattr(steps, "StateFile", state)
    monkeypatch.setattr(steps.signal, "signal", lambda *_: None)
    return owners


def test_a_line_a_step_and_their_sum(told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What was done and what was there, then how many of each; warnings are not among them."""
    new, old = (Address(4, "eth0", f"192.168.0.{number}/24") for number in (11, 12))
    plan = [Step("apply", new, new), Step("keep", old, old)]
    steps.carry_out(lambda *_: plan, CONFIG, BOTH, "paraglider start", dry_run=False)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "done        address 192.168.0.11/24 on eth0",
        "unchanged   address 192.168.0.12/24 on eth0",
        "1 done, 1 unchanged",
    ]
    assert "no interface has the `snat` address 10.0.0.254" in said.err
    assert told == ["paraglider start"]


def test_a_dry_run_of_nothing_says_so(told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """As a comment, for what is printed is a script."""
    steps.carry_out(lambda *_: [], CONFIG, BOTH, "paraglider start", dry_run=True)
    assert capsys.readouterr().out == "# nothing to do: the host is set up\n"
    assert told == ["paraglider start"]
