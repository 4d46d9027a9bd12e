"""The notes of kept labs, and what is removed of which lab."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paraglider.host import bpffs
from paraglider.lab import direct, namespace, removal


def test_notes_are_those_of_labs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other notes are skipped, and so is invalid JSON."""
    monkeypatch.setattr(removal, "STATE", tmp_path)
    note = {"prefix": "pg1", "directory": "/nowhere"}
    (tmp_path / "lab-pg1.json").write_text(json.dumps(note))
    (tmp_path / "lab-pg2.json").write_text("{")
    (tmp_path / "setup-1f.json").write_text("{}")
    assert removal.notes() == {tmp_path / "lab-pg1.json": note}


def test_down_unmounts_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept lab has no process that would: its bpffs go with the last of the labs."""
    unmounted: list[str] = []
    monkeypatch.setattr(removal, "notes", dict)
    monkeypatch.setattr(namespace, "stale", list)
    monkeypatch.setattr(bpffs, "unmount", lambda _, source: unmounted.append(source))
    assert removal.down() == []
    assert unmounted == ["paraglider-lab"] * 2


@pytest.mark.parametrize(
    ("files", "forward", "undone", "backends"),
    [
        (["paraglider.conf"], "nat", ["balancer"], 0),
        (["paraglider.conf"], "dsr", ["balancer"], 2),
        (["lb1/paraglider.conf", "lb2/paraglider.conf"], "nat", ["lb1", "lb2"], 0),
        (["lb1/paraglider.conf"], "tunnel", ["lb1"], 2),
        ([], "nat", [], 0),
    ],
)
def test_every_balancer_is_undone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    forward: str,
    undone: list[str],
    backends: int,
) -> None:
    """That has a file, by its own file; and the backends, where they have a set-up."""
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(f"services: [{{forward: {forward}}}]")
    roles = ("balancer", "lb1", "lb2", "backend1", "backend2", "client")
    ran: list[tuple[str, str]] = []
    left = [f"pg1-{role}" for role in roles] + ["pg2-lb1"]
    ended: list[str] = []
    again: list[str] = []

    class Remembering(namespace.Namespace):
        def run(self, args: list[str], **options: object) -> None:  # type: ignore[override]
            ran.append((self.name, args[-1] if "--undo" in args else args[args.index("-c") + 1]))

    monkeypatch.setattr(removal, "Namespace", Remembering)
    monkeypatch.setattr(removal, "STATE", tmp_path)
    monkeypatch.setattr(namespace, "names", lambda: [] if again else left)
    monkeypatch.setattr(namespace, "end_processes", lambda *names, **_: ended.extend(names))
    monkeypatch.setattr(namespace, "remove_all", again.append)
    monkeypatch.setattr(direct, "undo", lambda backend, _: ran.append((backend.name, "direct")))
    removal.remove("pg1", tmp_path / ".")
    assert sorted(ended) == [f"pg1-{role}" for role in undone]
    assert [name for name, what in ran if what == "direct"] == [
        f"pg1-backend{number}" for number in range(1, backends + 1)
    ]
    assert [name for name, what in ran if what == "--undo"] == sorted(ended)
    assert again == ["pg1"]
