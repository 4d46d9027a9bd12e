"""The formats that can be imported, and how each is detected.

Lives here: ``FORMATS``, ``draft_of``.
Rules: the first line that only one format can have decides; comments are ignored. Rules of iptables
can be lines of another format's script, so they decide only if no other line does. Raises only
``ConfigError`` for any text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paraglider.config import reader
from paraglider.config.diagnostics import ConfigError, Mark
from paraglider.config.importers import (
    convey,
    glider,
    haproxy,
    iptables,
    ipvsadm,
    keepalived,
    loaded,
    nginx,
)
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.includes import Includes

_OURS = re.compile(r"services\s*:")


@dataclass(frozen=True, slots=True)
class Format:
    """One format: its title, the pattern of its lines, its importer, and its longest line.

    ``weak``: its lines can be in a file of another format.
    """

    title: str
    looks: re.Pattern[str]
    convert: Callable[[str, Includes], Draft]
    longest_line: int = 4096
    weak: bool = False


def _alone(convert: Callable[[str], Draft]) -> Callable[[str, Includes], Draft]:
    """``convert`` of a format whose files include no others."""

    def converted(text: str, _: Includes) -> Draft:
        return convert(text)

    return converted


def _glider(text: str) -> Draft:
    parsed = reader.parse(text)
    if not parsed.broken and glider.is_glider(parsed.data):
        return glider.convert(parsed)
    draft = Draft(marks=parsed.marks, problems=list(parsed.problems))
    if not draft.problems:
        draft.mistake((), Mark(1, 1), f"there is no `{glider.ROOT}`; write its keys below it")
    return draft


FORMATS = {
    "loaded": Format("loaded's configuration", loaded.LOOKS, _alone(loaded.convert)),
    "glider": Format(
        "the Go Paraglider's configuration",
        re.compile(rf"[\"'{{]?{glider.ROOT}[\"']?\s*:"),
        _alone(_glider),
        longest_line=reader.MAX_BYTES,
    ),
    "convey": Format(
        "Convey's configuration", convey.LOOKS, _alone(convey.convert), convey.LONGEST_LINE
    ),
    "ipvsadm": Format("rules of ipvsadm", ipvsadm.LOOKS, _alone(ipvsadm.convert)),
    "keepalived": Format("keepalived's configuration", keepalived.LOOKS, keepalived.convert),
    "haproxy": Format("HAProxy's configuration", haproxy.LOOKS, _alone(haproxy.convert)),
    "nginx": Format("nginx's configuration", nginx.LOOKS, nginx.convert, 65_536),
    "iptables": Format("rules of iptables", iptables.LOOKS, _alone(iptables.convert), weak=True),
}


def draft_of(
    text: str,
    file: str,
    name: str | None = None,
    mode: convey.Mode | None = None,
    includes: Includes | None = None,
) -> tuple[Format, Draft]:
    """The format of ``text`` (``name``, or as detected), and its draft.

    ``mode`` is Convey's mode; ``includes`` reads the files that the file includes, by default none.
    Raises ``ConfigError`` if the format is not detected.
    """
    chosen = FORMATS[name or _detected(text, file)]
    for index, line in enumerate(_lines(text)):
        if len(line) > chosen.longest_line:
            what = f"a line of {len(line)} characters is no line of {chosen.title}"
            raise ConfigError([f"{file}:{index + 1}:1: {what}; is it the right file?"])
    if chosen is FORMATS["convey"]:
        return chosen, convey.convert(text, mode)
    return chosen, chosen.convert(text, includes or Includes())


def _detected(text: str, file: str) -> str:
    weak = ""
    for line in _lines(text):
        if _OURS.match(line):
            remedy = "use it as it is"
            raise ConfigError([f"{file}:1:1: this is a paraglider.conf already; {remedy}"])
        for name, each in FORMATS.items():
            if each.looks.match(line):
                if not each.weak:
                    return name
                weak = weak or name
    if weak:
        return weak
    known = ", ".join(FORMATS)
    if not text.strip():
        raise ConfigError([f"{file}:1:1: the file is empty; name one of these: {known}"])
    what = f"this looks like none of these: {known}"
    raise ConfigError([f"{file}:1:1: {what}; name its format with --from if it is one"])


def _lines(text: str) -> Iterator[str]:
    """The lines one by one, without a list of all."""
    return (match[0] for match in re.finditer(r"[^\n]*(?:\n|$)", text))
