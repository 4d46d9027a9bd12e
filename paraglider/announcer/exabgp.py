"""Says routes to ExaBGP, which has started this process: its text API, of version 4, on stdout.

    neighbor 192.0.2.254 announce route 203.0.113.11/32 next-hop self med 100
    neighbor 192.0.2.254 withdraw route 203.0.113.11/32 next-hop self

The same for ExaBGP 4.2 and 5. A VIP that is not preferred has another MED, the community
GRACEFUL_SHUTDOWN (65535:0, RFC 8326), and the AS path of `prepend`.

Lives here: ``commands`` and ``lines``, what to say of a VIP, which are pure; ``ExabgpOutput``.
Rules: a pipe is never waited for. What cannot be written is written later, the newest of each VIP.
Acknowledgements are not needed; they are read (``resident``), since ExaBGP waits for room for them.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Iterator, Mapping
from math import inf
from typing import Final

from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig
from paraglider.config.own_address import OwnAddress
from paraglider.config.types import IPAddress
from paraglider.daemon.processes.loop import Loop

#: "do not use this path if there is another" (RFC 8326, 2)
GRACEFUL_SHUTDOWN: Final = "65535:0"

#: neighbor (None: all) → the rest of its line
Commands = Mapping[IPAddress | None, str]


def commands(config: AnnounceConfig, vip: IPAddress, route: VipRoute) -> Commands:
    """What to say about ``vip``, to each neighbor."""
    words = f"route {vip}/{vip.max_prefixlen} next-hop {_next_hop(config, vip)}"
    if route is VipRoute.WITHDRAWN:
        line = f"withdraw {words}"
    elif route is VipRoute.ANNOUNCED:
        line = f"announce {words} med {config.med}"
    else:
        line = f"announce {words} med {config.worse_med}"
        if config.prepend:
            line += f" as-path [ {' '.join(map(str, config.prepend))} ]"
        line += f" community [ {GRACEFUL_SHUTDOWN} ]"
    return dict.fromkeys(_neighbors(config, vip), line)


def lines(config: AnnounceConfig, vip: IPAddress, route: VipRoute) -> list[str]:
    """The same as whole lines."""
    return [_line(neighbor, words) for neighbor, words in commands(config, vip, route).items()]


def _line(neighbor: IPAddress | None, words: str) -> str:
    return words if neighbor is None else f"neighbor {neighbor} {words}"


def _neighbors(config: AnnounceConfig, vip: IPAddress) -> list[IPAddress] | list[None]:
    """Those of the family of ``vip``; without any of it, all, whose sessions carry both."""
    own = [one for one in config.neighbors if one.version == vip.version]
    return own or list(config.neighbors) or [None]


def _next_hop(config: AnnounceConfig, vip: IPAddress) -> str:
    hop = config.next_hop
    if isinstance(hop, OwnAddress):
        found = hop.of_family(vip.version)
        return "self" if found is None else str(found.ip)
    return str(hop)


class ExabgpOutput:
    """Writes to the descriptor ``number``."""

    def __init__(self, config: AnnounceConfig, number: int = 1) -> None:
        self._config = config
        self._number = number
        kind = os.fstat(number).st_mode
        # Others may share a terminal or a file, which have no reader that could stop reading.
        self._waits = not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind))
        self._loop: Loop | None = None
        self._routes: dict[IPAddress, VipRoute] = {}
        self._said: dict[IPAddress, dict[IPAddress | None, str]] = {}
        self._due: dict[IPAddress, None] = {}  # the VIPs of which not all is said
        self._rest = b""
        self.broken = False

    @property
    def settled(self) -> bool:
        """Whether everything is said, or cannot be said any more."""
        return self.broken or not (self._due or self._rest)

    def attach(self, loop: Loop) -> None:
        """Write when there is room, on ``loop``."""
        if not self._waits:
            os.set_blocking(self._number, False)
            self._loop = loop
            self._watch()

    def configure(self, config: AnnounceConfig) -> None:
        """The file has changed: everything that is said otherwise now is said again."""
        self._config = config
        self._due = dict.fromkeys(self._routes)
        self._write()

    def say(self, change: VipChange) -> None:
        """Say ``change``."""
        self._routes[change.vip] = change.route
        self._due.setdefault(change.vip)
        self._write()

    def poll(self, _now: float) -> float:
        """Nothing is due by time."""
        return inf

    def close(self) -> None:
        """Leave the descriptor as it was."""
        if not self._waits:
            os.set_blocking(self._number, True)

    def _write(self) -> None:
        """Write what is not said, as far as there is room."""
        while not self.settled:
            if not self._rest:
                vip = next(iter(self._due))
                self._rest = "".join(self._news(vip)).encode("ascii")
                del self._due[vip]
                continue
            try:
                sent = os.write(self._number, self._rest[: select.PIPE_BUF])
            except BlockingIOError:
                break
            except OSError:  # ExaBGP is gone
                self.broken = True
            else:
                self._rest = self._rest[sent:]
        self._watch()

    def _news(self, vip: IPAddress) -> Iterator[str]:
        """The lines that change what was said of ``vip`` to what holds."""
        route = self._routes[vip]
        wanted, before = commands(self._config, vip, route), self._said.get(vip, {})
        withdrawn = commands(self._config, vip, VipRoute.WITHDRAWN)
        left = {one: next(iter(withdrawn.values())) for one in before if one not in wanted}
        self._said[vip] = dict(wanted)
        for neighbor, line in (left | dict(wanted)).items():
            if before.get(neighbor) != line:
                yield f"{_line(neighbor, line)}\n"

    def _watch(self) -> None:
        if self._loop is None:
            return
        if self.broken:
            self._loop.forget(self._number)
        else:  # an error of its reader is seen without writing
            self._loop.watch(self._number, self._ready, writing=not self.settled)

    def _ready(self) -> None:
        poll = select.poll()
        poll.register(self._number, 0)
        self.broken = self.broken or bool(poll.poll(0))  # its reader is gone
        self._write()
