"""A proxy of ``haproxy.cfg``: a frontend, a backend or both, with what it has from `defaults`.

Lives here: ``HaproxyProxy``, ``proxies``, ``keyword_of``.
Rules: as HAProxy's configuration manual, section 4: a proxy has the settings of the last `defaults`
above it, or of the one that it names (`from NAME`); its own replace them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from paraglider.config.importers.draft import Draft
from paraglider.config.importers.haproxy_reader import HaproxyLine, HaproxySection
from paraglider.config.wording import shown

PROXIES = ("frontend", "listen", "backend")


#: most lines that a proxy inherits
_MOST_INHERITED: Final = 1000


class _IndexedLines:
    """Lines by their first word, since each is looked for many times."""

    def __init__(self, lines: Iterable[HaproxyLine] = ()) -> None:
        self.lines = list(lines)
        self._by_keyword: dict[str, list[HaproxyLine]] = {}
        for line in self.lines:
            self._by_keyword.setdefault(line.keyword, []).append(line)

    def all(self, words: tuple[str, ...]) -> list[HaproxyLine]:
        """The lines that begin with ``words``."""
        found = self._by_keyword.get(words[0], [])
        return [line for line in found if line.words[: len(words)] == words]


class HaproxyProxy:
    """A proxy; ``defaults`` are the lines that it inherits."""

    def __init__(self, section: HaproxySection, inherited: _IndexedLines) -> None:
        self.section = section
        self.defaults = inherited.lines
        self._inherited = inherited
        self._own = _IndexedLines(section.lines)

    @property
    def name(self) -> str:
        """Its name."""
        return self.section.name

    def all(self, *words: str) -> list[HaproxyLine]:
        """Its lines that begin with ``words``: its own, or without one those that it inherits."""
        return self._own.all(words) or self._inherited.all(words)

    def last(self, *words: str) -> HaproxyLine | None:
        """The last of its lines that begin with ``words``."""
        found = self.all(*words)
        return found[-1] if found else None

    def option(self, name: str) -> HaproxyLine | None:
        """Its line `option NAME`, unless `no option NAME` takes it back."""
        for lines in (self._own, self._inherited):
            given, taken = lines.all(("option", name)), lines.all(("no", "option", name))
            if given and (not taken or taken[-1].mark < given[-1].mark):
                return given[-1]
            if taken:
                return None
        return None

    def last_option(self, names: Iterable[str]) -> HaproxyLine | None:
        """The last of its options ``names``, of which one replaces the other."""
        found = [line for line in map(self.option, names) if line is not None]
        return max(found, key=lambda line: line.mark, default=None)

    @property
    def servers(self) -> list[HaproxyLine]:
        """Its lines about servers, after those that it inherits."""
        inherited = [line for line in self.defaults if line.keyword == "default-server"]
        own = [line for line in self.section.lines if line.keyword in ("server", "default-server")]
        return inherited + own

    @property
    def mode(self) -> str:
        """`tcp`, or what it says."""
        line = self.last("mode")
        return line.word(1) if line is not None else "tcp"


def proxies(sections: list[HaproxySection], draft: Draft) -> Iterator[HaproxyProxy]:
    """The proxies of ``sections``, with what they inherit."""
    current = _IndexedLines()
    named: dict[str, _IndexedLines] = {}
    for section in sections:
        if section.kind not in ("defaults", *PROXIES):
            continue
        lines = current
        source = section.words[section.words.index("from") + 1 :] if "from" in section.words else ()
        if source:
            if source[0] not in named:
                what = (
                    f"there is no `defaults {source[0]}`" if source[0].isprintable() else "no such"
                )
                draft.mistake(("services",), section.mark, f"{what}; correct the name")
            lines = named.get(source[0], _IndexedLines())
        if section.kind == "defaults":
            # Each `defaults` begins anew, unless it names another.
            current = _IndexedLines([*(lines.lines if source else ()), *section.lines])
            if len(current.lines) > _MOST_INHERITED:
                what = f"`defaults` with more than {_MOST_INHERITED} lines"
                draft.mistake(("services",), section.mark, f"{what}; remove what is not needed")
                return
            if section.name and section.name != "from":
                named[section.name] = current
        elif not section.name:
            what = f"a `{section.kind}` without a name"
            draft.mistake(("services",), section.mark, f"{what}; write `{section.kind} NAME`")
        elif section.kind != "backend" and len(section.words) > 1 and not source:
            # The old way of `bind`: `listen NAME ADDRESS:PORT`.
            line = HaproxyLine(section.mark, ("bind", *section.words[1:]))
            section.lines.insert(0, line)
            yield HaproxyProxy(section, lines)
        else:
            yield HaproxyProxy(section, lines)


def keyword_of(words: tuple[str, ...]) -> str:
    """The keyword of a line as a message names it: `option NAME`, `timeout NAME`, or one word."""
    two = words[0] in ("option", "timeout", "no", "stats", "http-check", "tcp-check")
    return shown(" ".join(words[: 2 if two else 1]))[1:-1]
