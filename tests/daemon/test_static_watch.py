"""`start --watch`: one at a time, and only on a host that is started.

The repairs are tested in ``tests/net/test_host_changes.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from paraglider.config.model import Config
from paraglider.daemon import log
from paraglider.daemon.host_helper.service import HostService
from paraglider.daemon.messages import HostConditions, TablesRestored
from paraglider.daemon.processes.notify import Notifier
from paraglider.daemon.static_watch import keep, only_keeper
from paraglider.errors import OperatorError

SERVICE = {"name": "web", "vip": "192.0.2.1/24", "protocol": "tcp", "backends": ["10.0.0.1"]}
CONFIG = Config.model_validate({"services": [SERVICE]})


class Told(Notifier):
    """A notifier that records its messages."""

    def __init__(self) -> None:
        super().__init__({})
        self.said: list[str] = []

    def ready(self) -> None:
        """See ``Notifier``."""
        self.said.append("ready")

    def status(self, text: str) -> None:
        """See ``Notifier``."""
        self.said.append(text)

    def stopping(self) -> None:
        """See ``Notifier``."""
        self.said.append("stopping")


class Events:
    """No events."""

    def register(self, _selector: object) -> None:
        """See ``HostEvents``."""

    def close(self) -> None:
        """See ``HostEvents``."""


class Host:
    """A reconciler of a host that is started for ``turns`` turns."""

    turns = 0

    def config(self) -> Config | None:
        """See ``Reconciler``."""
        Host.turns -= 1
        return CONFIG if Host.turns >= 0 else None


class Turns:
    """Turns in which an address is missing."""

    def __init__(self, _events: object, service: HostService, _arrivals: object) -> None:
        self._notify = service._notify

    def register(self, _selector: object) -> None:
        """See ``HostTurns``."""

    def pause(self) -> float:
        """See ``HostTurns``."""
        return 0.0

    def turn(self) -> None:
        """See ``HostTurns``."""
        self._notify(TablesRestored(families=(4,)))
        self._notify(HostConditions.of({"address a": ("unhealthy", "missing; it is put back")}))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No resources of this host."""
    for name, value in {
        "lock_path": lambda name: tmp_path / f"{name}.lock",
        "privileges.limit": lambda *_: None,
        "HostEvents": Events,
        "Reconciler": Host,
        "HostTurns": Turns,
        "signal.signal": lambda *_: None,
        "Arrivals.__init__": lambda *_: None,
        "Arrivals.apply_config": lambda *_: None,
    }.items():
        monkeypatch.setattr(f"paraglider.daemon.static_watch.{name}", value)


def test_one_at_a_time() -> None:
    """The second is refused with the remedy; a released lock is free."""
    with only_keeper(), pytest.raises(OperatorError, match="another `paraglider start --watch`"):
        only_keeper()
    only_keeper().close()


def test_nothing_is_started() -> None:
    """The error says so."""
    Host.turns = 0
    with pytest.raises(OperatorError, match="nothing is started here"):
        keep(Told())


def test_it_ends_when_nothing_is_started_any_more() -> None:
    """The service manager gets ready, the conditions, and the end."""
    Host.turns = 3
    told = Told()
    log.set_up(False)
    with capture_logs() as logged:
        keep(told)
    assert told.said == ["ready", "unhealthy", "unhealthy", "stopping"]
    lines = [line["event"] for line in logged]
    assert lines == ["ready", "address a: missing; it is put back", "ended"]
    assert logged[-1]["why"] == "`paraglider stop`"
