"""What the hub and the reconciler say to each other, as plain data that JSON carries.

To the reconciler; each order has an ``id``, its answer the same number as ``re``:
    {"do": "adjust", "config": CONFIG}
        bring the host to this configuration; answer: {"done": ["address …", …]} or an error
    {"do": "hash", "family": 4, "text": "flush chain …"}
        the hash by which the kernel balances where no worker answers; answer: {} or an error
    {"do": "forget", "marks": [1375731712, …], "passing": [1375731713, …],
     "datagrams": [["192.0.2.1", 53, 53], …]}
        connections that are over (``controller.kernel_tables.Over``); answer: {} or an error
    {"do": "count"}
        how many connections conntrack has, by mark; answer: {"marks": {"1375731712": 3, …}}
    {"do": "read", "families": [4, 6]}
        the counters of the kernel's tables; answer: {"reading": READING} (``readings``)
    an error is {"error": what, "remedy": …, "fault": "operator" or "platform"}
From the reconciler:
    {"do": "conditions", "found": {"address 192.0.2.1/24 on eth0": ["unhealthy", "missing; …"], …}}
        all that is wrong with the host now
    {"do": "renewed", "families": [4]}
        the table of offloaded flows was made anew, as it was set up

Lives here: ``Conditions``, ``Renewed``, ``told``, ``error_of`` and ``refusal``.
Rules: ``plain`` and ``of`` are the only way across, and ``of`` judges what comes. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

from paraglider.errors import OperatorError, ParagliderError, PlatformError

Plain = dict[str, Any]
Severity = Literal["degraded", "unhealthy"]

#: objects that one message names, and characters of a text, at most
MOST: Final = 300
LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class HostConditions:
    """All that is wrong with the host now: how bad it is and what to say of it, by the object."""

    do: ClassVar[str] = "conditions"
    found: Mapping[str, tuple[Severity, str]]

    def plain(self) -> Plain:
        """For ``of``."""
        kept = list(self.found.items())[:MOST]
        found = {name[:LONGEST]: [how, text[:LONGEST]] for name, (how, text) in kept}
        return {"do": self.do, "found": found}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From ``plain``; raises KeyError, TypeError or ValueError for what is none."""
        found: dict[str, tuple[Severity, str]] = {}
        for name, (how, text) in dict(plain["found"]).items():
            if how not in ("degraded", "unhealthy") or not isinstance(text, str):
                raise ValueError("no condition")
            found[str(name)[:LONGEST]] = (how, text[:LONGEST])
        if len(found) > MOST:
            raise ValueError("too many conditions")
        return cls(found)


@dataclass(frozen=True, slots=True)
class Renewed:
    """The tables of these families were made anew."""

    do: ClassVar[str] = "renewed"
    families: tuple[int, ...]

    def plain(self) -> Plain:
        """For ``of``."""
        return {"do": self.do, "families": list(self.families)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From ``plain``; raises KeyError, TypeError or ValueError for what is none."""
        families = tuple(plain["families"])
        if not set(families) <= {4, 6}:
            raise ValueError("no family")
        return cls(families)


def told(message: Mapping[str, Any]) -> HostConditions | Renewed:
    """What the reconciler said; raises KeyError, TypeError or ValueError for anything else."""
    for kind in (HostConditions, Renewed):
        if message["do"] == kind.do:
            return kind.of(message)
    raise ValueError(str(message["do"])[:40])


def refusal(error: ParagliderError) -> Plain:
    """The answer that says ``error``."""
    fault = "operator" if isinstance(error, OperatorError) else "platform"
    return {"error": error.what, "remedy": error.remedy, "fault": fault}


def error_of(answer: Mapping[str, Any]) -> ParagliderError | None:
    """The error that an answer says, None for none."""
    if "error" not in answer:
        return None
    kind = OperatorError if answer.get("fault") == "operator" else PlatformError
    return kind(str(answer["error"]), str(answer.get("remedy", "")))
