"""Tests of ``paraglider.config.section``: durations, and refusals of every section."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from paraglider.config.section import Duration, Seconds, Section


class Example(Section):
    """A section with one of each."""

    whole: Seconds = 1
    part: Duration = 1.0


@pytest.mark.parametrize("value", [0.1, 1, 2.5, 86_400])
def test_durations(value: float) -> None:
    """A tenth of a second up to a day, with or without a fraction."""
    assert Example(part=value).part == value


@pytest.mark.parametrize(("text", "seconds"), [("100ms", 0.1), ("2.5s", 2.5), ("24h", 86_400)])
def test_durations_with_units(text: str, seconds: float) -> None:
    """They are seconds, whichever unit the file has."""
    found = Example.model_validate({"part": text}).part
    assert (found, type(found)) == (seconds, float)
    assert Example.model_validate({"whole": "2m"}).whole == 120


@pytest.mark.parametrize(
    "value", [0, 0.09, -1, 86_401, True, "1", "99ms", "25h", "soon", float("nan"), float("inf")]
)
def test_no_durations(value: Any) -> None:
    """Shorter, longer, or no number: refused."""
    with pytest.raises(ValidationError):
        Example(part=value)


@pytest.mark.parametrize("keys", [{"whole": 1.5}, {"whole": "500ms"}, {"whole": 0}, {"hole": 1}])
def test_sections_are_strict(keys: dict[str, Any]) -> None:
    """A fraction where whole seconds belong, and a key that does not exist, are refused."""
    with pytest.raises(ValidationError):
        Example.model_validate(keys)
