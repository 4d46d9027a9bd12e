"""The Go Paraglider's ``glider.yaml``: one frontend, its address towards the backends, backends.

Lives here: ``is_glider``, ``convert``.
Rules: the Go tool's iptables rules correspond to `forward: offload`: the kernel rewrites the
destination, and the source to `privateip`; round robin over ADDRESS:PORT, TCP only. It ignores
unknown keys; here they are noted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from paraglider.config.diagnostics import Path, PathSet, Problem, spelled
from paraglider.config.importers.draft import Draft
from paraglider.config.reader import Document
from paraglider.config.types import parse_address, parse_endpoint
from paraglider.config.wording import shown, ticked

ROOT = "frontend"
_SERVICE: Path = ("services", 0)
_OURS = {"bind": "vip", "privateip": "snat", "backends": "backends"}


def is_glider(data: Any) -> bool:
    """Whether ``data`` of a YAML file has the root key of the Go tool and not ours."""
    return isinstance(data, dict) and ROOT in data and "services" not in data


def convert(document: Document) -> Draft:
    """The service of a ``glider.yaml``; ``is_glider`` is true of ``document``."""
    return _GliderConversion(document).draft


class _GliderConversion:
    def __init__(self, document: Document) -> None:
        self._marks = document.marks
        self.draft = Draft(problems=[self._moved(problem) for problem in document.problems])
        self._misread = PathSet(problem.path for problem in self.draft.problems)
        self._note_unknown_keys(document.data, (), (ROOT,))
        self._frontend(document.data[ROOT])

    def _moved(self, problem: Problem) -> Problem:
        """A YAML mistake, with its path in our configuration."""
        path, mark = problem.path, self._marks.of(problem)
        if path[:1] == (ROOT,) and len(path) > 1 and path[1] in _OURS:
            path = (*_SERVICE, _OURS[str(path[1])], *path[2:])
        return replace(problem, path=path, mark=mark)

    def _note_unknown_keys(
        self, section: dict[str, Any], path: Path, known: tuple[str, ...]
    ) -> None:
        for key in section:
            if key not in known:
                remedy = f"the keys here are: {', '.join(known)}"
                mark = self._marks.key((*path, key))
                self.draft.note(mark, f"unknown key {ticked(key)}; {remedy}")

    def _frontend(self, frontend: Any) -> None:
        draft, place = self.draft, self._marks.key((ROOT,))
        if not isinstance(frontend, dict):
            remedy = f"write keys here: {', '.join(_OURS)}"
            what = f"`{ROOT}`: {shown(frontend)} is no section"
            draft.mistake(("services",), place, f"{what}; {remedy}")
            return
        self._note_unknown_keys(frontend, (ROOT,), tuple(_OURS))
        fixed = {"name": ROOT, "protocol": "tcp", "forward": "offload", "strategy": "rr"}
        for key, value in fixed.items():
            draft.set((*_SERVICE, key), value, place)
        # A placeholder until `bind` is read, because the check of the backends' ports needs one.
        draft.set((*_SERVICE, "ports"), 1, place)
        for key, ours in _OURS.items():
            if key not in frontend:
                what = f"`{ROOT}` has no `{key}`; add `{key}: ...`"
                draft.mistake((*_SERVICE, ours), place, what)
        if "bind" in frontend:
            self._put(("bind",), frontend["bind"], (*_SERVICE, "vip"), self._bind)
        if "privateip" in frontend:
            self._put(("privateip",), frontend["privateip"], (*_SERVICE, "snat"), self._privateip)
        if "backends" in frontend:
            self._backends(frontend["backends"])

    def _put(self, path: Path, value: Any, ours: Path, put: Callable[[Any, Path], None]) -> None:
        """Set the value at ``path`` by ``put``, or add a problem."""
        if self._misread.touches(ours):
            return
        try:
            put(value, ours)
        except ValueError as error:
            mark = self._marks.value((ROOT, *path))
            self.draft.mistake(ours, mark, f"`{spelled(path)}`: {error}")

    def _bind(self, value: Any, ours: Path) -> None:
        address, port = parse_endpoint(value)
        mark = self._marks.value((ROOT, "bind"))
        self.draft.set(ours, str(address), mark, "bind")
        self.draft.set((*_SERVICE, "ports"), port, mark)

    def _privateip(self, value: Any, ours: Path) -> None:
        mark = self._marks.value((ROOT, "privateip"))
        self.draft.set(ours, str(parse_address(value)), mark, "privateip: what the backends see")

    def _backends(self, backends: Any) -> None:
        ours: Path = (*_SERVICE, "backends")
        mark = self._marks.value((ROOT, "backends"))
        if not isinstance(backends, list) or not backends:
            empty = backends is None or backends == []
            said = "the list is empty" if empty else f"{shown(backends)} is no list"
            remedy = "write an ADDRESS:PORT on a line of its own, after a dash"
            self.draft.mistake(ours, mark, f"`backends`: {said}; {remedy}")
            return
        for index, backend in enumerate(backends):
            path: Path = ("backends", index)
            self.draft.set((*ours, index), {}, self._marks.value((ROOT, *path)))
            self._put(path, backend, (*ours, index), self._backend)

    def _backend(self, value: Any, ours: Path) -> None:
        address, port = parse_endpoint(value)
        mark = self._marks.value((ROOT, "backends", ours[-1]))
        self.draft.set((*ours, "address"), str(address), mark)
        self.draft.set((*ours, "port"), port, mark)
