"""The listing of ``ipvsadm -L``, with numbers or names, as people paste it.

Lives here: ``LOOKS``, ``separate`` (rows of a listing, and the other lines), ``services``, and
``key``, by which services of commands and listings are the same.
Rules: only a listing with the columns Forward and Weight says how servers are reached; the other
listings (`--stats`, `--rate`, `--thresholds`, `-c`) are refused with the command that prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.endpoints import host_and_port
from paraglider.config.importers.lvs import LvsServer, LvsService
from paraglider.config.importers.services import FIREWALL_MARK
from paraglider.config.types import IPAddress
from paraglider.config.wording import shown

#: the pattern of a line that only such a listing has
LOOKS = r"\s*IP Virtual Server version\s|\s*(?:TCP|UDP|FWM)\s+\S+\s+(?:IPv6\s+)?[a-z]{2,5}\b"
_TITLE = re.compile(r"\s*(IP Virtual Server version|IPVS connection entries|Prot |pro expire)")
_COLUMNS = re.compile(r"\s*->\s*RemoteAddress")
_SERVICE = re.compile(r"\s*(TCP|UDP|SCTP|FWM)\s+(\S+)\s*(.*)")
_SERVER = re.compile(r"\s*->\s+(\S+)\s*(.*)")
_WAYS = {"Masq": "masquerading", "Route": "gatewaying", "Tunnel": "tunnel"}
_FLAGS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service", "FWM": "-f"}
Key = tuple[str, IPAddress | str, int | None]

#: most rows of a listing
MOST: Final = 100_000
_RIGHT = "print it with `ipvsadm -L -n`"


@dataclass(frozen=True, slots=True)
class ListingParts:
    """The rows of listings with their places, and the text with blank lines in their place."""

    rows: list[tuple[Mark, str]]
    text: str


@dataclass(frozen=True, slots=True)
class ListedService:
    """A service, and its key."""

    key: Key
    service: LvsService


def key(flag: str, text: str) -> Key:
    """What a service is known by that a command would name by ``flag`` and ``text``."""
    if flag == "-f":
        return flag, text, None
    try:
        return (flag, *host_and_port(text))
    except ValueError:
        return flag, text, None


def separate(text: str) -> ListingParts:
    """The rows of listings in ``text``, and the rest."""
    rows, rest = [], []
    for index, line in enumerate(text.split("\n")):
        kinds = (_TITLE, _COLUMNS, _SERVICE, _SERVER)
        if any(kind.match(line) for kind in kinds):
            rows.append((Mark(index + 1, len(line) - len(line.lstrip()) + 1), line.rstrip()))
            rest.append("")
        else:
            rest.append(line)
    return ListingParts(rows, "\n".join(rest))


def services(rows: Sequence[tuple[Mark, str]], draft: Draft) -> Iterator[ListedService]:
    """The services in ``rows`` in their order; mistakes are added to ``draft``."""
    current: ListedService | None = None
    skipped = False
    for count, (mark, row) in enumerate(rows):
        if count == MOST:
            what = f"the listing has more than {MOST} rows; import parts of it"
            draft.mistake(("services",), mark, what)
            return
        if _TITLE.match(row) or _COLUMNS.match(row):
            kind = _wrong_kind(row)
            if kind:
                draft.mistake(("services",), mark, f"this lists {kind}, not the servers; {_RIGHT}")
                return
            continue
        match = _SERVICE.match(row)
        if match is not None:
            if current is not None:
                yield current
            current = _service(mark, match, draft)
            skipped = current is None
        elif current is not None:
            _add(current.service, mark, row, draft)
        elif not skipped:
            what = "this server is below no service"
            draft.mistake(("services",), mark, f"{what}; start at a line such as TCP VIP:80 rr")
    if current is not None:
        yield current


def _wrong_kind(row: str) -> str:
    if "connection entries" in row or row.split()[:2] == ["pro", "expire"]:
        return "connections"
    if _COLUMNS.match(row) and "Forward" not in row:
        return "counters" if "Conns" in row or "CPS" in row or "InPkts" in row else "thresholds"
    return ""


def _service(mark: Mark, match: re.Match[str], draft: Draft) -> ListedService | None:
    protocol, text, rest = match.groups()
    flags = re.search(r"\(([^()]*)\)", rest)
    words = re.sub(r"\([^()]*\)", " ", rest).split()
    if protocol == "SCTP":
        what = f"the service of SCTP {shown(text)} is left out"
        draft.note(mark, f"{what}; a service here has TCP or UDP")
        return None
    if words[:1] == ["IPv6"]:
        words = words[1:]
    if not words or not words[0].isalpha():
        what = f"the service {shown(text)} has no scheduler in this row"
        draft.mistake(("services",), mark, f"{what}; {_RIGHT}")
        return None
    try:
        vip, port = (f"{FIREWALL_MARK}{text}", None) if protocol == "FWM" else host_and_port(text)
    except ValueError as error:
        draft.note(mark, f"{str(error).partition('; ')[0]}, so it is left out; {_RIGHT}")
        return None
    ours = "udp" if protocol == "UDP" else "tcp"
    service = LvsService(mark, ours, vip, [port] if port else [], words[0])
    service.flags = tuple(flags[1].replace(",", " ").split()) if flags is not None else ()
    _flags(service, words[1:])
    return ListedService(key(_FLAGS[protocol], text), service)


def _flags(service: LvsService, words: list[str]) -> None:
    """The words behind the scheduler: `persistent 600 mask 255.255.255.0 ops pe sip`."""
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "persistent" and rest:
            service.persistent = rest.pop()
        elif word == "mask" and rest:
            service.mask = rest.pop()
        else:
            more = f" {rest.pop()}" if word == "pe" and rest else ""
            service.left_out.append((service.mark, f"{shown(word + more)}, a flag of the service,"))


def _add(service: LvsService, mark: Mark, row: str, draft: Draft) -> None:
    match = _SERVER.match(row)
    if match is None:
        return
    text, columns = match[1], match[2].split()
    if len(columns) < 2 or columns[0] not in (*_WAYS, "Local"):
        what = f"the row of {shown(text)} has no Forward and Weight"
        draft.mistake(("services",), mark, f"{what}; {_RIGHT}")
        return
    if columns[0] == "Local":
        what = f"the server {shown(text)} is the balancer itself, so it is left out"
        draft.note(mark, f"{what}; run the program on a host of its own")
        return
    try:
        real, port = host_and_port(text)
    except ValueError as error:
        draft.note(mark, f"{str(error).partition('; ')[0]}, so it is left out; {_RIGHT}")
        return
    service.servers.append(LvsServer(mark, text, real, port or 0, _WAYS[columns[0]], columns[1]))
