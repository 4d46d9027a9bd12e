"""The criteria of ``bench.steady``, and its configuration."""

from pathlib import Path

from bench.steady import Minute, configuration, line, verdict
from paraglider.config.load import load


def minute(rate: float, asked: int = 240, answered: int = 240, peer: float = 2000) -> Minute:
    """One minute of ``rate`` connections a second, ``peer`` through kernel DNAT."""
    return Minute(rate, peer, 0, asked, answered, 0)


def test_a_steady_run_has_no_fault() -> None:
    """The minutes between do not matter."""
    assert verdict([minute(1000), minute(700), minute(951)]) == ""


def test_a_last_minute_that_is_slower_is_a_fault() -> None:
    """The fault has the ratio."""
    fault = "the last minute has 0.94 of the first one's rate, kernel DNAT 1.00"
    assert verdict([minute(1000), minute(940)]) == fault


def test_a_machine_that_gives_less_is_no_fault_of_the_balancer() -> None:
    """A faster machine does not raise the bar."""
    assert verdict([minute(1000), minute(800, peer=1600)]) == ""
    assert verdict([minute(1000), minute(700, peer=1600)])
    assert verdict([minute(1000), minute(960, peer=4000)]) == ""


def test_the_line_of_a_minute() -> None:
    """Rates, shares of the first minute's, and the queries."""
    assert line("nat", [minute(1000), minute(900, 10, 9, peer=1800)]) == (
        "nat minute 2: 900 connections/s (0.90 of the first; kernel DNAT 1800, 0.90), 0 failed;"
        " DNS: 9 of 10 answered, 0 again"
    )


def test_every_query_without_an_answer_is_a_fault() -> None:
    """Over all minutes."""
    faults = verdict([minute(1000, 10, 9), minute(1000, 10, 8)])
    assert faults == "3 DNS queries have no answer"


def test_the_file_has_default_settings(tmp_path: Path) -> None:
    """Neither workers nor flows nor timeouts are set: users get the measured settings."""
    path = tmp_path / "paraglider.conf"
    path.write_text(configuration("nat", tmp_path), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert {service.name for service in load(path).services} == {"web", "dns"}
    assert not any(key in text for key in ("workers", "flows", "timeouts", "queue"))
