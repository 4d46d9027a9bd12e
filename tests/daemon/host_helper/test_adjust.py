"""Changes of the host for a changed configuration: all of them, or none with the reason."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from paraglider.config.model import Config
from paraglider.daemon.host_helper.adjust import HostRules
from paraglider.errors import OperatorError, PlatformError
from paraglider.host import apply
from paraglider.host.changes.base import Host
from paraglider.host.state import StateFile
from paraglider.host.wanted import WantedFile

CONFIG = Config.model_validate(
    {
        "services": [
            {"name": "a", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
        ]
    }
)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host that is set up; the changes from now on."""
    steps: list[str] = []

    def set_up(plan: Any, _host: Any, _state: Any, say: Any) -> None:
        for step, outcome in plan:
            say(outcome, step)
            if outcome == "failed":
                raise PlatformError("the step failed", "everything was rolled back")
            if outcome == "interrupted":
                say("rolled back", step)
                raise SystemExit(0)
            steps.append(step)

    monkeypatch.setattr(StateFile, "load", lambda _self: ["a change"])
    monkeypatch.setattr(apply, "set_up", set_up)
    monkeypatch.setattr(WantedFile, "set", lambda *_: None)
    return steps


def plan(monkeypatch: pytest.MonkeyPatch, *steps: tuple[str, str]) -> None:
    """Set the plan and its outcome."""
    monkeypatch.setattr(apply, "prepare", lambda *_: steps)


def adjust(config: Config = CONFIG) -> list[str]:
    """The reported changes."""
    return HostRules(frozenset({4}), Host()).adjust(config)


def test_what_was_done(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """Without unchanged steps."""
    plan(monkeypatch, ("an address", "unchanged"), ("rules", "done"))
    assert adjust() == ["rules"]


def test_a_host_without_setup_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator has done it by hand."""
    monkeypatch.setattr(StateFile, "load", lambda _self: [])
    monkeypatch.setattr(apply, "prepare", lambda *_: pytest.fail("it was planned for"))
    assert adjust() == []


def test_a_step_that_fails(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """The error has the remedy, and the log has the step."""
    plan(monkeypatch, ("sysctl", "failed"), ("rules", "done"))
    failing = pytest.raises(PlatformError, match="the step failed")
    with structlog.testing.capture_logs() as logged, failing as caught:
        adjust()
    assert caught.value.remedy.startswith("run paraglider.config")
    assert [(line["event"], line["step"]) for line in logged] == [("set-up: failed", "sysctl")]
    assert done == []


def test_a_daemon_that_is_stopped_meanwhile(
    monkeypatch: pytest.MonkeyPatch, done: list[str]
) -> None:
    """The log has it, and no error: nothing has failed."""
    plan(monkeypatch, ("rules", "interrupted"))
    with structlog.testing.capture_logs() as logged, pytest.raises(SystemExit):
        adjust()
    assert [(line["event"], line["log_level"]) for line in logged] == [
        ("set-up: interrupted", "info"),
        ("set-up: rolled back", "info"),
    ]


def test_what_can_be_known_before(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """A missing interface, or a refusal of the plan: nothing is changed."""
    plan(monkeypatch, ("rules", "done"))
    network = {"public": {"interface": "nowhere0"}}
    other = CONFIG.model_validate({**CONFIG.model_dump(by_alias=True), "network": network})
    with pytest.raises(PlatformError, match="nowhere0"):
        adjust(other)

    def refuse(*_: Any) -> None:
        raise OperatorError("no such user")

    monkeypatch.setattr(apply, "prepare", refuse)
    with pytest.raises(PlatformError, match="no such user"):
        adjust()
    assert done == []
