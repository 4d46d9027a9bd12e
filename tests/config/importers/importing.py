"""What the tests of importers do with a draft."""

from __future__ import annotations

from paraglider.config.importers.draft import Draft
from paraglider.config.importers.render import render
from paraglider.config.load import accepted, parse
from paraglider.config.model import Config


def config(draft: Draft) -> Config:
    """The configuration that ``draft`` becomes; its output is known to become the same."""
    made = accepted(draft, "f").config
    assert parse(render(draft, "f", "a test"), "output").config == made
    return made


def notes(draft: Draft) -> list[str]:
    """`LINE: what; remedy` of everything without a counterpart, in the order of the file."""
    found = [(draft.marks.of(note), f"{note.what}; {note.remedy}") for note in draft.notes]
    assert all(note.what and note.remedy for note in draft.notes)
    return [f"{mark.file and mark.file + ':'}{mark.line}: {said}" for mark, said in sorted(found)]
