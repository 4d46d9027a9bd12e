"""Convey's ``.toml``: frontends, each with a pool of backends.

Lives here: ``LOOKS``, ``MODES``, ``convert``.
Rules: Convey's forward mode is an option of its command line, not of the file; without the option
`mode`, a file with a section `passthrough` is in that mode. TOML's parser has no positions, so the
lines of headers and keys are searched in the text; a key that is not found has the line above it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any, Literal

from paraglider.config.diagnostics import Mark, Path
from paraglider.config.importers.draft import Draft, number
from paraglider.config.importers.services import unique_name
from paraglider.config.types import parse_endpoint, parse_port
from paraglider.config.wording import shown, ticked

Mode = Literal["proxy", "passthrough", "dsr"]
MODES: tuple[Mode, ...] = ("proxy", "passthrough", "dsr")
LOOKS = re.compile(r"\s*\[\s*(frontends|backends)\s*[.\]]")

# The parser's time and memory grow with the square of a key's length: these bound the input.
LONGEST_LINE = 1000
_LARGEST = 1_000_000
_LONG_KEY = re.compile(r"(?<![\w\"'-])(?:[\w\"'-]++\s*+\.\s*+){8}")
_HEADER = re.compile(r"\s*\[([^\[\]]+)\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=")
_STEP = re.compile(r"\s*(?:\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+))\s*(?:\.|$)")
_AT = re.compile(r"\(at line (\d+), column (\d+)\)")
_FORWARDS = {
    "proxy": {"forward": "proxy"},
    "passthrough": {"forward": "nat"},
    "dsr": {"forward": "nat", "return": "direct"},
}


def convert(text: str, mode: Mode | None = None) -> Draft:
    """A service for each frontend of a Convey file, with the forward method of ``mode``."""
    draft = Draft()
    data = _parsed(text, draft)
    if data is not None:
        _ConveyConversion(data, _places(text), mode, draft).run()
    return draft


def _parsed(text: str, draft: Draft) -> dict[str, Any] | None:
    if len(text) > _LARGEST:
        what = f"this is larger than {_LARGEST // 1_000_000} MB; is it Convey's file?"
        draft.mistake(("services",), Mark(1, 1), what)
        return None
    if key := _LONG_KEY.search(text):
        mark = Mark(text.count("\n", 0, key.start()) + 1, 1)
        draft.mistake(("services",), mark, "a key of more than 8 parts; is this Convey's file?")
        return None
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and numbers beyond Python's limit
        at = _AT.search(str(error))
        end = Mark(text.count("\n") + 1, 1) if "end of document" in str(error) else Mark(1, 1)
        mark = Mark(int(at[1]), int(at[2])) if at else end
        what = _AT.sub("", str(error)).strip()
        draft.mistake(("services",), mark, f"the TOML does not parse ({what}); correct this line")
    except RecursionError:
        draft.mistake(
            ("services",), Mark(1, 1), "values are nested too deep; is this Convey's file?"
        )
    return None


def _places(text: str) -> dict[Path, Mark]:
    """The lines of the sections and keys of the text."""
    places: dict[Path, Mark] = {}
    section: Path = ()
    for index, line in enumerate(text.split("\n")):
        header = _HEADER.match(line)
        match = header or _KEY.match(line)
        if match is None:
            continue
        steps = tuple(a or b or c for a, b, c in _STEP.findall(match[1]))
        path = steps if header else section + steps
        if header:
            section = steps
        mark = Mark(index + 1, match.start(1) + 1 - bool(header))
        for length in range(1, len(path) + 1):
            places.setdefault(path[:length], mark)  # a table may have only sub-tables
    return places


class _ConveyConversion:
    def __init__(
        self, data: dict[str, Any], places: dict[Path, Mark], mode: Mode | None, draft: Draft
    ) -> None:
        self._data = data
        self._places = places
        self._mode: Mode = mode or ("passthrough" if "passthrough" in data else "proxy")
        self._guessed = mode is None
        self._draft = draft
        self._used: set[str] = set()
        self._names: dict[str, int] = {}

    def run(self) -> None:
        """Convert every section of the file into the draft."""
        self._note_unknown_keys(self._data, (), ("frontends", "backends", "stats", "passthrough"))
        frontends = self._section(("frontends",))
        if not frontends:
            what = "there is no frontend; add [frontends.NAME] with listen_addr and backend"
            self._draft.mistake(("services",), self._mark(("frontends",)), what)
        for name, frontend in frontends.items():
            if isinstance(frontend, dict):
                self._frontend(len(self._names), name)
            else:
                self._section(("frontends", name))  # reports the mistake
        for name in self._section(("backends",)):
            if name not in self._used:
                what = f"no frontend uses the backends {ticked(name)}; they are left out"
                self._draft.note(self._mark(("backends", name)), what)
        self._stats()
        self._passthrough()

    def _mark(self, path: Path) -> Mark:
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, Mark(1, 1))

    def _section(self, path: Path) -> dict[str, Any]:
        """The table at ``path``; empty, with a problem, if it is not a table."""
        value: Any = self._data
        for step in path:
            value = value.get(step, {}) if isinstance(value, dict) else {}
        if isinstance(value, dict):
            return value
        what = f"{ticked(str(path[-1]))}: {shown(value)} is no table"
        self._draft.mistake(("services",), self._mark(path), f"{what}; write [{path[-1]}]")
        return {}

    def _note_unknown_keys(self, section: dict[str, Any], path: Path, known: Iterable[str]) -> None:
        known = list(known)
        for key in section:
            if key not in known:
                what = f"{ticked(key)} has no counterpart; leave it out"
                self._draft.note(self._mark((*path, key)), what)

    def _frontend(self, index: int, name: str) -> None:
        draft, path = self._draft, ("frontends", name)
        ours: Path = ("services", index)
        mark = self._mark(path)
        frontend = self._section(path)
        self._note_unknown_keys(frontend, path, ("listen_addr", "backend"))
        draft.set((*ours, "name"), unique_name(name, self._names, "frontend"), mark)
        draft.set((*ours, "protocol"), "tcp", mark)
        draft.set((*ours, "ports"), 1, mark)  # until listen_addr is read
        for key, value in _FORWARDS[self._mode].items():
            draft.set((*ours, key), value, mark)
        self._set_method(ours, mark)
        place = self._mark((*path, "listen_addr"))
        try:
            address, port = parse_endpoint(frontend.get("listen_addr"))
        except ValueError as error:
            draft.mistake((*ours, "vip"), place, f"`listen_addr`: {error}")
        else:
            draft.set((*ours, "vip"), str(address), place, "listen_addr")
            draft.set((*ours, "ports"), port, place)
        self._pool(frontend.get("backend"), self._mark((*path, "backend")), ours)

    def _set_method(self, ours: Path, mark: Mark) -> None:
        """Note the differences from Convey in the packets' path."""
        if self._guessed:
            flag = {"proxy": "--mode passthrough or --mode dsr", "passthrough": "--mode dsr"}
            self._draft.comments[ours] = (
                f"Convey's mode taken to be {self._mode}; {flag[self._mode]} if it ran as that."
            )
        if self._mode == "passthrough":
            what = "backends see the client's address here, Convey's own there"
            remedy = "make this host their default gateway, or use offload with snat"
            self._draft.note(mark, f"{what}; {remedy}", (*ours, "forward"))

    def _pool(self, pool: Any, mark: Mark, ours: Path) -> None:
        draft, backends = self._draft, self._section(("backends",))
        if not isinstance(pool, str) or pool not in backends:
            said = ticked(pool) if isinstance(pool, str) else shown(pool)
            what = f"`backend`: there are no backends {said}; add [backends.NAME]"
            draft.mistake((*ours, "backends"), mark, what)
            return
        path: Path = ("backends", pool)
        if pool not in self._used:
            self._note_unknown_keys(self._section(path), path, ("servers", "health_check_interval"))
        self._check(path, ours)
        servers = self._section((*path, "servers"))
        if not servers:
            what = f"the backends {ticked(pool)} have no servers"
            remedy = "add [backends.NAME.servers.NAME] with addr"
            draft.mistake((*ours, "backends"), self._mark(path), f"{what}; {remedy}")
        weights = [
            self._server((*path, "servers", name), ours, i) for i, name in enumerate(servers)
        ]
        strategy = "wrr" if any(weight != 1 for weight in weights) else "rr"
        draft.set((*ours, "strategy"), strategy, self._mark(path))
        self._used.add(pool)

    def _server(self, path: Path, ours: Path, index: int) -> Any:
        """Add one server; returns its weight."""
        draft, server = self._draft, self._section(path)
        item: Path = (*ours, "backends", index)
        mark = self._mark((*path, "addr"))
        self._note_unknown_keys(server, path, ("addr", "weight"))
        draft.set(item, {}, mark, str(path[-1])[:40] if str(path[-1]).isprintable() else "")
        try:
            address, port = parse_endpoint(server.get("addr"))
        except ValueError as error:
            draft.mistake(item, mark, f"`addr`: {error}")
            return 1
        draft.set((*item, "address"), str(address), mark)
        draft.set((*item, "port"), port, mark)
        if "weight" in server:
            draft.set((*item, "weight"), server["weight"], self._mark((*path, "weight")))
        return server.get("weight", 1)

    def _check(self, path: Path, ours: Path) -> None:
        key = "health_check_interval"
        if key in self._section(path):
            mark = self._mark((*path, key))
            self._draft.set((*ours, "check", "type"), "tcp", mark)
            self._draft.set((*ours, "check", "interval"), self._section(path)[key], mark, key)

    def _stats(self) -> None:
        stats = self._section(("stats",))
        self._note_unknown_keys(stats, ("stats",), ("port",))
        if "port" in stats:
            mark, port = self._mark(("stats", "port")), stats["port"]
            try:
                port = parse_port(number(port) if isinstance(port, str) else port)
            except ValueError as error:
                self._draft.mistake(("stats", "bind"), mark, f"`port`: {error}")
                return
            comment = "as Convey, on every address; 127.0.0.1 keeps it to this host"
            self._draft.set(("stats", "bind"), f"0.0.0.0:{port}", mark, comment)

    def _passthrough(self) -> None:
        section = self._section(("passthrough",))
        path: Path = ("passthrough",)
        self._note_unknown_keys(section, path, ("connection_tracker_capacity", "workers"))
        if self._mode == "proxy":
            return
        if "connection_tracker_capacity" in section:
            key = "connection_tracker_capacity"
            self._draft.set(("flows", "max"), section[key], self._mark((*path, key)), key)
        workers = section.get("workers")
        if workers is not None:
            mark = self._mark((*path, "workers"))
            last = workers - 1 if type(workers) is int else str(workers)
            self._draft.set(("workers", "first_core"), 0, mark)
            self._draft.set(("workers", "last_core"), last, mark, f"workers = {shown(workers)}")
