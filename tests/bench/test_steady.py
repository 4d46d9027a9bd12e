"""What ``bench.steady`` calls steady, and the file it measures with."""

from pathlib import Path

from bench.steady import Minute, configuration, verdict
from paraglider.config.load import load


def minute(rate: float, asked: int = 240, answered: int = 240) -> Minute:
    """One minute of ``rate`` connections a second."""
    return Minute(rate, 0, asked, answered, 0)


def test_a_steady_run_has_no_fault() -> None:
    """What the minutes between were is of no account."""
    assert verdict([minute(1000), minute(700), minute(951)]) == ""


def test_a_last_minute_that_is_slower_is_a_fault() -> None:
    """Its share is said."""
    assert (
        verdict([minute(1000), minute(940)]) == "the last minute has 0.94 of the first one's rate"
    )


def test_every_query_without_an_answer_is_a_fault() -> None:
    """Those of all minutes are added up."""
    faults = verdict([minute(1000, 10, 9), minute(1000, 10, 8)])
    assert faults == "3 DNS queries have no answer"


def test_the_file_has_default_settings(tmp_path: Path) -> None:
    """Neither workers nor flows nor timeouts are set: what is measured is what a user gets."""
    path = tmp_path / "paraglider.conf"
    path.write_text(configuration("nat", tmp_path), encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert {service.name for service in load(path).services} == {"web", "dns"}
    assert not any(key in text for key in ("workers", "flows", "timeouts", "queue"))
