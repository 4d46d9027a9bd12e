"""Changes survive the state: as JSON-ready data and back they are the same."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from paraglider.host.changes import records
from paraglider.host.changes.records import from_record, is_stored, to_record

STORED = records._STORED


@pytest.mark.parametrize("kind", sorted(STORED))
def test_there_and_back(kind: str) -> None:
    """Every kind of change that is stored comes back equal from JSON text."""
    stored = [f.name for f in fields(STORED[kind]) if f.metadata.get("stored", True)]
    change = from_record({"kind": kind, **dict.fromkeys(stored, "4")})
    assert is_stored(change)
    again = from_record(json.loads(json.dumps(to_record(change))))
    assert again == change
    assert type(again) is STORED[kind]


def test_other_data_is_refused() -> None:
    """An unknown kind, or unknown fields, raise the error that the state expects."""
    with pytest.raises(KeyError):
        from_record({"kind": "of another version"})
    with pytest.raises(TypeError):
        from_record({"kind": next(iter(STORED)), "surplus": 1})
