"""Tests of ``paraglider.daemon.web.probes``: 200 or 503 by the words of `paraglider health`."""

from __future__ import annotations

from typing import Any

import pytest

from paraglider.daemon.web.probes import LATE, probe
from paraglider.errors import OperatorError, PlatformError


def sample(status: str, node: str = "healthy", *problems: str) -> dict[str, Any]:
    """A sample as far as it matters."""
    return {"health": {"status": status, "problems": list(problems)}, "node": {"health": node}}


@pytest.mark.parametrize(
    ("word", "healthz", "readyz"),
    [
        ("healthy", 200, 200),
        ("degraded", 200, 200),
        ("draining", 200, 503),
        ("unhealthy", 503, 503),
    ],
)
def test_each_word(word: str, healthz: int, readyz: int) -> None:
    """Of everything here, and of the balancer alone, each by itself."""
    for path, status in (("/healthz", healthz), ("/readyz", readyz)):
        assert probe(path, None, sample(word, "healthy"), 0.0).status == status
        assert probe(path, "node", sample("healthy", word), 0.0).status == status


def test_the_body() -> None:
    """The text of `paraglider health`; of the balancer alone the word."""
    answer = probe("/readyz", None, sample("unhealthy", "healthy", "service web: no", "x: y"), 0.0)
    assert (answer.status, answer.text) == (503, "unhealthy\nservice web: no\nx: y\n")
    assert answer.content_type == "text/plain"
    answer = probe("/readyz", "node", sample("unhealthy", "degraded", "service web: no"), 0.0)
    assert (answer.status, answer.text) == (200, "degraded\n")


def test_a_late_sample() -> None:
    """What the supervisor said last is not what holds now."""
    assert probe("/healthz", None, sample("healthy"), LATE).status == 200
    with pytest.raises(PlatformError, match="has not answered for 11 s"):
        probe("/healthz", None, sample("healthy"), LATE + 1.0)


def test_another_health() -> None:
    """A word that is not known is refused, whatever the health."""
    with pytest.raises(OperatorError, match="there is no health of 'vip'; write of=node"):
        probe("/readyz", "vip", sample("healthy"), 0.0)
