"""Tests of ``paraglider.config.health``: defaults of checks and failover."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.health import Check, Failover


def test_defaults_are_haproxys() -> None:
    """A check without a word is a TCP connection every 2 s, up after 2, down after 3."""
    check = Check()
    assert (check.type, check.port, check.path, check.host) == ("tcp", None, "/", None)
    assert (check.interval, check.rise, check.fall, check.verify) == (2, 2, 3, False)
    assert [str(part) for part in check.expect.status] == ["200-399"]
    assert check.expect.body is None


@pytest.mark.parametrize("fall", [1, 2, 3, 10])
@pytest.mark.parametrize("interval", [0.1, 0.5, 1, 2, 10, 3600])
def test_silence_is_found_in_time(interval: float, fall: int) -> None:
    """A silent backend is down within interval x fall + 1 s."""
    check = Check(interval=interval, fall=fall)
    longest = interval + fall * check.effective_timeout
    assert longest <= interval * fall + 1 + 1e-9


def test_the_timeout_of_the_file_is_used() -> None:
    """A configured timeout applies with any interval."""
    assert Check(timeout=5).effective_timeout == 5


@pytest.mark.parametrize(
    "keys",
    [
        {"type": "ftp"},
        {"path": "no-slash"},
        {"path": "/with space"},
        {"path": "/line\r\nbreak"},
        {"host": "a\r\nb"},
        {"command": []},
        {"command": "/bin/true"},
        {"rise": 0},
        {"fall": 1001},
        {"expect": {"status": 42}},
        {"expect": {"body": "("}},
        {"interval": 0},
    ],
)
def test_wrong_checks(keys: dict[str, Any]) -> None:
    """Checks that no probe can do are refused, above all those that would
    add a line to a request.
    """
    with pytest.raises(ValidationError):
        Check.model_validate(keys)


def test_plain_form_survives_json() -> None:
    """A check that went to another process and came back is the same."""
    check = Check.model_validate(
        {
            "type": "https",
            "expect": {"status": [200, "300-399"], "body": "o[k]"},
            "host": "a.example",
            "timeout": 0.5,
        }
    )
    back = json.loads(json.dumps(check.model_dump(mode="json")))
    assert Check.model_validate(back) == check


def test_failover_takes_fractions() -> None:
    """Rounds may follow each other faster than once a second."""
    failover = Failover(check_cycle=0.5, timeout=0.2)
    assert (failover.check_cycle, failover.timeout) == (0.5, 0.2)
