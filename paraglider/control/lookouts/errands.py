"""What the hub and the scout say to each other, as plain data that JSON carries.

To the scout:
    {"do": "errand", "names": [NAME, …], "files": ["/etc/…", …]}
        this is all there is to ask and to watch from here on
From the scout:
    {"do": "answer", "name": NAME, "records": [["10.0.0.1", 8080, 1], …], "ttl": 30.0}
        address, port and weight of the backends that the DNS has
    {"do": "failed", "name": NAME, "why": …}
        it has none, or could not be asked
    {"do": "changed", "file": "/etc/…"}
        the file is another than before; it has not been read

Lives here: one class for each of these, ``Name`` among them.
Rules: ``plain`` and ``of`` are the only way across, and ``of`` judges what comes. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from paraglider.config.types import parse_endpoint
from paraglider.system.srv import Record

Plain = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Name:
    """A name with SRV records, the server to ask (empty: the host's), and the family wanted."""

    name: str
    server: str
    family: int

    def plain(self) -> Plain:
        """For ``of``."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From ``plain``; raises KeyError, TypeError or ValueError for what is none."""
        name = cls(str(plain["name"]), str(plain["server"]), int(plain["family"]))
        if name.server:
            parse_endpoint(name.server)
        return name


@dataclass(frozen=True, slots=True)
class Errand:
    """All that there is to ask and to watch."""

    do: ClassVar[str] = "errand"
    names: tuple[Name, ...]
    files: tuple[str, ...]

    def plain(self) -> Plain:
        """For ``of``."""
        return {
            "do": self.do,
            "names": [name.plain() for name in self.names],
            "files": list(self.files),
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From ``plain``; raises KeyError, TypeError or ValueError for what is none."""
        if plain["do"] != cls.do:
            raise ValueError(f"{plain['do']} is no errand")
        return cls(tuple(map(Name.of, plain["names"])), tuple(map(str, plain["files"])))


@dataclass(frozen=True, slots=True)
class Answered:
    """The backends that the DNS has at ``name``; ``ttl`` is seconds."""

    do: ClassVar[str] = "answer"
    name: Name
    records: tuple[Record, ...]
    ttl: float

    def plain(self) -> Plain:
        """For ``told``."""
        records = [[str(r.address), r.port, r.weight] for r in self.records]
        return {"do": self.do, "name": self.name.plain(), "records": records, "ttl": self.ttl}


@dataclass(frozen=True, slots=True)
class Failed:
    """The DNS names no backend at ``name``, or could not be asked; ``why`` is one line."""

    do: ClassVar[str] = "failed"
    name: Name
    why: str

    def plain(self) -> Plain:
        """For ``told``."""
        return {"do": self.do, "name": self.name.plain(), "why": self.why}


@dataclass(frozen=True, slots=True)
class Changed:
    """``file`` is another than before."""

    do: ClassVar[str] = "changed"
    file: str

    def plain(self) -> Plain:
        """For ``told``."""
        return {"do": self.do, "file": self.file}


News = Answered | Failed | Changed


def told(plain: Mapping[str, Any]) -> News:
    """What the scout said; raises KeyError, TypeError or ValueError for what is no news."""
    kind = plain["do"]
    if kind == Answered.do:
        records = tuple(
            Record(ipaddress.ip_address(address), int(port), int(weight))
            for address, port, weight in plain["records"]
        )
        return Answered(Name.of(plain["name"]), records, float(plain["ttl"]))
    if kind == Failed.do:
        return Failed(Name.of(plain["name"]), str(plain["why"]))
    if kind == Changed.do:
        return Changed(str(plain["file"]))
    raise ValueError(f"{kind} is no news of the scout")
