"""A draft as the text of a commented ``paraglider.conf``.

Lives here: ``render``.
Rules: the keys are in the order of the model, whatever the input. Every string that YAML could read
as another type is quoted; comments with text of the other file never contain line breaks. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from paraglider.config.diagnostics import Path
from paraglider.config.importers.draft import Draft
from paraglider.config.messages import known_keys, section_at
from paraglider.config.wording import shown

_PLAIN = re.compile(
    r"[A-Za-z][A-Za-z0-9_.-]*|/[A-Za-z0-9_./-]*|\d+\.\d+\.\d+\.\d+(/\d+)?", re.ASCII
)
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


def render(draft: Draft, file: str, title: str) -> str:
    """The configuration file of ``draft``, which was made from ``file`` (a ``title``)."""
    return "\n".join(_Writer(draft).lines(file, title)) + "\n"


class _Writer:
    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._notes: dict[Path, list[str]] = {}
        for note in sorted(draft.notes, key=draft.marks.of):
            mark = draft.marks.of(note)
            place = f"line {mark.line}" + (f" of {shown(mark.file)}" if mark.file else "")
            self._notes.setdefault(note.path, []).append(f"# {place}: {note.what}; {note.remedy}")

    def lines(self, file: str, title: str) -> Iterator[str]:
        yield "# yaml-language-server: $schema=paraglider.schema.json"
        yield "#"
        yield f"# Made by `paraglider import` from {shown(FilePath(file).name)}: {title}."
        yield from self._notes.get((), ())
        for key in self._ordered(self._draft.data, ()):
            yield ""
            yield from self._entry(key, self._draft.data[key], (key,), "")

    @staticmethod
    def _ordered(section: dict[str, Any], path: Path) -> list[str]:
        model = section_at(path)
        return sorted(section, key=known_keys(model).index if model is not None else None)

    def _remarks(self, path: Path, indent: str) -> Iterator[str]:
        """The comment lines above the value at ``path``."""
        return (indent + line for line in self._notes.get(path, ()))

    def _entry(self, key: str, value: Any, path: Path, indent: str) -> Iterator[str]:
        yield from self._remarks(path, indent)
        comment = self._comment(path)
        if isinstance(value, dict):
            yield f"{indent}{key}:{comment}"
            for inner in self._ordered(value, path):
                yield from self._entry(inner, value[inner], (*path, inner), indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            yield f"{indent}{key}:{comment}"
            for index, item in enumerate(value):
                yield from self._item(item, (*path, index), indent + "  ")
        else:
            yield f"{indent}{key}: {_flow(value)}{comment}"

    def _item(self, item: dict[str, Any], path: Path, indent: str) -> Iterator[str]:
        keys = self._ordered(item, path)
        if any(isinstance(value, dict | list) for value in item.values()):
            if comment := self._comment(path):
                yield indent + comment.strip()
            yield from self._remarks(path, indent)
            lines = [
                line
                for key in keys
                for line in self._entry(key, item[key], (*path, key), indent + "  ")
            ]
            yield f"{indent}- {lines[0].strip()}"
            yield from lines[1:]
            return
        yield from self._remarks(path, indent)
        alone = keys == ["address"]
        text = _flow(item["address"] if alone else {key: item[key] for key in keys})
        yield f"{indent}- {text}{self._comment(path)}"

    def _comment(self, path: Path) -> str:
        comment = self._draft.comments.get(path)
        return f"  # {comment}" if comment else ""


def _flow(value: Any) -> str:
    """``value`` on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)
