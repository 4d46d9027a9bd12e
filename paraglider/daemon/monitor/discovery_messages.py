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
from typing import Any, ClassVar, Final, Self

from paraglider.config.types import parse_endpoint
from paraglider.health.fields import name, number, text, whole
from paraglider.host.dns_records import MOST_TARGETS, Record

Plain = dict[str, Any]
#: backends that one answer lists at most: a target may have several addresses
MOST_RECORDS: Final = 16 * MOST_TARGETS


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
        if not isinstance(plain, Mapping):
            raise ValueError("a name is no object")
        asked = cls(name(plain, "name"), name(plain, "server"), whole(plain, "family", 4, 6))
        if asked.server:
            parse_endpoint(asked.server)
        return asked


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
        listed = plain["records"]
        if not isinstance(listed, list) or len(listed) > MOST_RECORDS:
            raise ValueError("`records` is no list, or too long")
        records = tuple(map(_record, listed))
        return Answered(Name.of(plain["name"]), records, number(plain, "ttl", 0.0, 1e10))
    if kind == Failed.do:
        return Failed(Name.of(plain["name"]), text(plain, "why"))
    if kind == Changed.do:
        return Changed(name(plain, "file"))
    raise ValueError("`do` is no news of the scout")


def _record(listed: object) -> Record:
    if not isinstance(listed, list) or len(listed) != 3:
        raise ValueError("a record is no list of three")
    fields = dict(zip(("address", "port", "weight"), listed, strict=True))
    address = ipaddress.ip_address(name(fields, "address"))
    return Record(address, whole(fields, "port", 0, 65535), whole(fields, "weight", 0, 65535))
