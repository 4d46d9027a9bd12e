"""Computes the minimal nft input that changes one of our tables to another.

A table's text (``rules.nft``) creates the table from any previous one: it empties chains, maps and
sets, and fills them. With thousands of backends this takes the kernel seconds, mostly for unchanged
objects. If the kernel is known to have the table of one text, the difference to the next is enough:
new objects, added and removed map elements, and the complete content of changed chains and sets.

Rules: pure. The lines are those of ``rules.nft`` and ``rules.conntrack``: one command each, sets
and chains flushed before they are filled, one map element per line. Other lines (the removal of
objects) come last, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

#: most elements in one command
AT_ONCE: Final = 500


@dataclass(slots=True)
class _TableLines:
    """The parsed text: lines that add ``objects``, in order; the lines that fill each of
    ``chains``, ``maps`` and ``sets``, by family, table and name; the ``rest``.
    """

    objects: list[str] = field(default_factory=list)
    chains: dict[str, list[str]] = field(default_factory=dict)
    maps: dict[str, list[str]] = field(default_factory=dict)
    sets: dict[str, list[str]] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)


def delta(before: str, after: str, anew: Iterable[str] = ()) -> str:
    """The nft input that changes the table of ``before`` to that of ``after``; the chains and sets
    named in ``anew`` are always refilled.
    """
    old, new = _read(before), _read(after)
    known, again = set(old.objects), frozenset(anew)
    lines = [line for line in new.objects if line not in known]
    for place, wanted in new.maps.items():
        lines += _elements(place, old.maps.get(place, []), wanted)
    for kind, held, contents in (("set", old.sets, new.sets), ("chain", old.chains, new.chains)):
        for place, wanted in contents.items():
            if held.get(place) != wanted or place.rpartition(" ")[2] in again:
                lines += [f"flush {kind} {place}", *wanted]
    return "".join(f"{line}\n" for line in (*lines, *new.rest))


def _elements(place: str, held: list[str], wanted: list[str]) -> Iterator[str]:
    """The commands that change a map's elements from the lines ``held`` to those of ``wanted``."""
    start = len(f"add element {place} {{ ")
    for verb, some, others in (("delete", held, set(wanted)), ("add", wanted, set(held))):
        found = [line[start:-2] for line in some if line not in others]
        for first in range(0, len(found), AT_ONCE):
            yield f"{verb} element {place} {{ {', '.join(found[first : first + AT_ONCE])} }}"


def _read(text: str) -> _TableLines:
    found = _TableLines()
    emptied = {"chain": found.chains, "map": found.maps, "set": found.sets}
    for line in text.splitlines():
        verb, kind, *words = line.split(" ", 5)
        place = " ".join(words[:3])
        if verb == "flush":
            emptied[kind][place] = []
        elif verb == "add" and kind == "rule":
            found.chains[place].append(line)
        elif verb == "add" and kind == "element":
            (found.maps if place in found.maps else found.sets)[place].append(line)
        elif verb == "add":
            found.objects.append(line)
        else:
            found.rest.append(line)
    return found
