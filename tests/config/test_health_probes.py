"""Tests of ``paraglider.config.health``: the types of `type` and `parameters` of a check."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from paraglider.config import health as probe
from paraglider.config.health import Check, ProbeKind, ProbeName, ProbeParameters, probes, register
from paraglider.core.parameter import Parameter
from paraglider.health.probes import KINDS

NAME = TypeAdapter(ProbeName)


class Knock(ProbeKind):
    """A probe with a parameter."""

    name = "knock"
    summary = "opens"
    parameters = (Parameter("times", 3, 1, 9, "Knocks."),)


class Ring(ProbeKind):
    """A probe without."""

    name = "ring"
    summary = "comes"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The reader of ``Knock`` and ``Ring`` is the only one registered; counts its calls."""
    calls: list[int] = []

    def read() -> dict[str, type[ProbeKind]]:
        calls.append(1)
        return {"knock": Knock, "ring": Ring}

    monkeypatch.setattr(probe, "_readers", [dict])
    register(read)
    return calls


def test_the_folder_is_read_at_the_first_use(registered: list[int]) -> None:
    """The reader registered last gives the probes, at the first use."""
    assert registered == []
    assert dict(probes()) == {"knock": Knock, "ring": Ring}
    assert registered == [1]


def test_without_a_registry_there_is_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the import."""
    monkeypatch.setattr(probe, "_readers", [])
    with pytest.raises(RuntimeError, match=r"import paraglider\.forward\.registry"):
        probes()


@pytest.mark.usefixtures("registered")
def test_another_name_is_refused_with_those_that_there_are() -> None:
    """As a ``Literal`` is refused."""
    assert NAME.validate_python("ring") == "ring"
    with pytest.raises(ValidationError) as told:
        NAME.validate_python("shout")
    (error,) = told.value.errors()
    assert (error["type"], error["ctx"]) == ("literal_error", {"expected": "'knock' or 'ring'"})


@pytest.mark.usefixtures("registered")
def test_the_schema_names_the_probes_and_their_parameters() -> None:
    """With their descriptions; other parameters are not allowed."""
    assert NAME.json_schema()["anyOf"] == [
        {"const": "knock", "description": "Passes if the backend opens."},
        {"const": "ring", "description": "Passes if the backend comes."},
    ]
    schema = TypeAdapter(ProbeParameters).json_schema()
    assert list(schema["properties"]) == ["times"]
    assert schema["properties"]["times"]["maximum"] == 9
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("value", [[1], {"a": [1]}, {"a": None}, "a"])
def test_parameters_are_a_section_of_scalars(value: Any) -> None:
    """Other values are refused at their place."""
    with pytest.raises(ValidationError):
        TypeAdapter(ProbeParameters).validate_python(value)


def test_a_probe_with_defaults_only() -> None:
    """It has no keys, needs nothing, and finds no contradictions."""
    assert list(ProbeKind.contradictions((), Check())) == []
    needs = (ProbeKind.needs_port, ProbeKind.needs_raw_socket, ProbeKind.runs_program)
    assert needs == (False, False, False)
    assert (ProbeKind.keys, ProbeKind.parameters) == (frozenset(), ())


def test_the_probes_are_those_of_the_folder() -> None:
    """``forward.registry``, which the model's users import, has registered them."""
    assert set(probes()) == set(KINDS)
