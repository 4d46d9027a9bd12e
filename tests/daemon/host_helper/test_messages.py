"""What the reconciler says crosses whole, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paraglider.daemon.host_helper.messages import (
    LONGEST,
    MOST,
    HostConditions,
    Renewed,
    error_of,
    refusal,
    told,
)
from paraglider.errors import OperatorError, PlatformError


@pytest.mark.parametrize(
    "said",
    [
        HostConditions({}),
        HostConditions({"interface eth0": ("unhealthy", "it is down"), "x": ("degraded", "")}),
        Renewed((4, 6)),
    ],
)
def test_what_is_said_is_heard(said: Any) -> None:
    """As JSON carries it."""
    assert told(json.loads(json.dumps(said.plain()))) == said


def test_a_host_with_very_much_wrong() -> None:
    """Is cut to what a message may have."""
    found = told(
        HostConditions({f"{i}" * 2000: ("degraded", "x" * 5000) for i in range(999)}).plain()
    )
    assert isinstance(found, HostConditions)
    assert len(found.found) <= MOST
    assert all(len(k) <= LONGEST and len(t) <= LONGEST for k, (_, t) in found.found.items())


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"do": 7},
        {"do": "adjust"},
        {"do": "conditions"},
        {"do": "conditions", "found": [1]},
        {"do": "conditions", "found": {"x": "degraded"}},
        {"do": "conditions", "found": {"x": ["dead", "y"]}},
        {"do": "conditions", "found": {"x": ["degraded", {}]}},
        {"do": "conditions", "found": {str(i): ["degraded", ""] for i in range(MOST + 1)}},
        {"do": "renewed", "families": [5]},
        {"do": "renewed", "families": 4},
        {"do": "renewed", "families": [[4]]},
    ],
)
def test_rubbish(message: Any) -> None:
    """Is an error that its reader expects."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        told(message)


@pytest.mark.parametrize("error", [OperatorError("a", "b"), PlatformError("c")])
def test_errors(error: Any) -> None:
    """Keep whose fault they are, and the remedy; an answer that says none has none."""
    found = error_of(refusal(error))
    assert type(found) is type(error)
    assert (found.what, found.remedy) == (error.what, error.remedy)
    assert error_of({"done": []}) is None
