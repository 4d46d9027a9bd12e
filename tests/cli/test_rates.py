"""Rates from two samples of a daemon."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.cli.rates import TRAFFIC, rated, total


def status(count: int | None, packets: int = 0, backend: str = "10.0.0.1") -> dict[str, Any]:
    """An answer in which everything has counted ``count``."""
    counts = dict.fromkeys(TRAFFIC, count)
    return {
        "services": [{"service": "web", **counts}],
        "backends": [{"service": "web", "backend": backend, **counts}],
        "workers": [{"name": "worker 0", "packets": packets}, {"name": "api"}],
    }


def test_a_rate_is_the_difference_by_the_seconds() -> None:
    """For services, backends and workers; an unknown counter has none; the rows are not changed."""
    found = rated(status(100, 10), status(150, 40), 2.0)
    assert found["services"][0]["rates"] == dict.fromkeys(TRAFFIC, 25.0)
    assert found["backends"][0]["rates"] == dict.fromkeys(TRAFFIC, 25.0)
    assert [row["rates"] for row in found["workers"]] == [{"packets": 15.0}, {"packets": None}]
    assert found["services"][0]["conns"] == 150


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [
        (None, status(5), 1.0),
        (status(9), status(5), 1.0),
        (status(None), status(5), 1.0),
        (status(5), status(None), 1.0),
        (status(5), status(5), 0.0),
    ],
    ids=["first look", "began anew", "was not known", "is not known", "no time"],
)
def test_no_rate_is_made_up(before: Any, after: Any, seconds: float) -> None:
    """If two samples do not give a rate, there is none."""
    found = rated(before, after, seconds)
    assert found["services"][0]["rates"] == dict.fromkeys(TRAFFIC)
    assert total(found["services"]) == dict.fromkeys(TRAFFIC)


def test_a_new_backend_has_no_rate_yet() -> None:
    """A backend that was not in the first sample."""
    found = rated(status(5, backend="10.0.0.2"), status(5), 1.0)
    assert found["backends"][0]["rates"]["conns"] is None
    assert found["services"][0]["rates"]["conns"] == 0.0


def test_totals() -> None:
    """The sum of the services that are known."""
    (row,) = rated(status(0), status(10), 1.0)["services"]
    (unknown,) = rated(status(None), status(None), 1.0)["services"]
    assert total([row, unknown, row]) == dict.fromkeys(TRAFFIC, 20.0)
