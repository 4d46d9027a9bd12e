"""From a plan to its printed steps, on a fake host."""

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
        """Does nothing."""

    def revert(self, host: Any) -> None:
        """Does nothing."""


class Net:
    """A host without addresses."""

    def interfaces(self) -> list[str]:
        """None."""
        return []


class Host:
    """A host with just that."""

    netlink = Net()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> list[str]:
    """The owners of the requested states; no lock is taken, no host is changed."""
    owners: list[str] = []

    @contextmanager
    def unlocked() -> Iterator[None]:
        yield

    def state(owner: str) -> StateFile:
        owners.append(owner)
        return StateFile(tmp_path, 1, owner)

    monkeypatch.setattr(steps, "wait_for_setup_lock", unlocked)
    monkeypatch.setattr(steps, "Host", Host)
    monkeypatch.setattr(steps, "StateFile", state)
    monkeypatch.setattr(steps.signal, "signal", lambda *_: None)
    return owners


def test_a_line_a_step_and_their_sum(told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Applied and unchanged steps, then their numbers; warnings are not counted."""
    new, old = (Address(4, "eth0", f"192.168.0.{number}/24") for number in (11, 12))
    plan = [Step("apply", new, new), Step("keep", old, old)]
    steps.apply_steps(lambda *_: plan, CONFIG, BOTH, "paraglider start", dry_run=False)
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "done        address 192.168.0.11/24 on eth0",
        "unchanged   address 192.168.0.12/24 on eth0",
        "1 done, 1 unchanged",
    ]
    assert "no interface has the `snat` address 10.0.0.254" in said.err
    assert told == ["paraglider start"]


def test_a_dry_run_without_steps_prints_a_comment(
    told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As a comment, because the output is a script."""
    steps.apply_steps(lambda *_: [], CONFIG, BOTH, "paraglider start", dry_run=True)
    assert capsys.readouterr().out == "# nothing to do: the host is set up\n"
    assert told == ["paraglider start"]
