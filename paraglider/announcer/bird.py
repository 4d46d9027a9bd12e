"""Says routes to BIRD: enables and disables protocols at its control socket, as birdc does.

The routes of a VIP are in two protocols of bird.conf (both `static`):

    bird.protocols     what routers are to use: enabled while the VIP is announced
    bird.worse         the same with a lower preference, another MED and the community
                       GRACEFUL_SHUTDOWN: enabled while it is announced or not preferred

BIRD has no other way to change a route from outside without `configure`, which reads the whole file
again. A protocol may have the routes of all VIPs of a family; it is enabled while one of them wants
it. Disabling one takes its routes out of BIRD's table, and all BGP sessions withdraw them.

Lives here: ``enabled``, the protocols that are to be enabled, which is pure, and ``BirdOutput``.
Rules: never `configure`. BIRD is not waited for: one command at a time, DEADLINE seconds for its
answer, then the connection is closed and made again after PAUSE seconds, and everything is said
again. So it is when BIRD has been restarted, and REPEAT seconds after everything was said: when
BIRD reads its file, its protocols are as that says, and no connection hears of it. With many
protocols that takes a twentieth of the time at most. What is to be said is found once a change, not
once a command.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from paraglider.announcer.routes import VipChange, VipRoute
from paraglider.config.announce import AnnounceConfig, BirdConfig, protocol_of
from paraglider.config.types import IPAddress
from paraglider.daemon import log
from paraglider.daemon.processes.loop import Loop

#: seconds for one answer
DEADLINE: Final = 2.0
#: seconds until the next attempt, after one that failed
PAUSE: Final = 1.0
#: seconds until everything is said again, at least
REPEAT: Final = 1.0
#: and at least so many times as long as it took
_SHARE: Final = 20
#: seconds until a command that BIRD has refused is sent again
REFUSED: Final = 10.0
#: bytes of an answer at most
_LONGEST: Final = 64 << 10
#: the last line of an answer: its code, a space, text (BIRD's programmer's manual, "CLI")
_LAST: Final = re.compile(rb"(?:^|\n)(\d{4}) [^\n]*\n")
_CODE: Final = re.compile(rb"(?:^|\n)(\d{4})[ -]([^\n]*)")
#: codes from here on are errors
_ERRORS: Final = 8000


def enabled(config: BirdConfig, routes: Mapping[IPAddress, VipRoute]) -> dict[str, bool]:
    """Each protocol for ``routes``, and whether it is to be enabled."""
    found: dict[str, bool] = {}
    for names, reasons in (
        (config.protocols, (VipRoute.ANNOUNCED,)),
        (config.worse, (VipRoute.ANNOUNCED, VipRoute.NOT_PREFERRED)),
    ):
        for vip, route in routes.items():
            if (name := protocol_of(names, vip)) is not None:
                found[name] = found.get(name, False) or route in reasons
    return found


class BirdOutput:
    """Connects to BIRD; ``clock`` is monotonic seconds."""

    def __init__(self, config: AnnounceConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = _section(config)
        self._clock = clock
        self._loop: Loop | None = None
        self._end: socket.socket | None = None
        self._routes: dict[IPAddress, VipRoute] = {}
        self._wanted: dict[str, bool] = {}
        self._said: dict[str, bool] = {}
        self._refused: dict[str, float] = {}  # when to try again
        self._behind: dict[str, None] = {}  # what is not as wanted, nor refused, in its order
        self._stale = False  # what is wanted is to be found anew
        self._round: float | None = None  # when the present round of commands began
        self._asked: tuple[str, bool] | None = None  # None with a connection: its greeting
        self._waiting = False
        self._received = b""
        self._deadline = inf
        self._again = -inf
        self._repeat = inf
        self._failed = False
        self._log: Any = log.logger()
        self.broken = False

    @property
    def settled(self) -> bool:
        """Whether BIRD has done everything."""
        return not self._next()

    def attach(self, loop: Loop) -> None:
        """Wait for answers on ``loop``."""
        self._loop = loop

    def configure(self, config: AnnounceConfig) -> None:
        """The file has changed. Protocols that it names no more are disabled. Raises ValueError if
        it has no `bird`.
        """
        section = _section(config)
        if section.socket != self._config.socket:
            self._drop(0.0)
        self._config = section
        self._refused.clear()
        self._stale = True

    def say(self, change: VipChange) -> None:
        """Say ``change``."""
        self._routes[change.vip] = change.route
        self._stale = True

    def poll(self, now: float) -> float:
        """Go on; returns the seconds until the next time."""
        if now >= self._deadline:
            self._fail(f"no answer in {DEADLINE:g} s")
        if self._end is None and now >= self._again and self._next():
            self._connect()
        if now >= self._repeat:
            self._repeat = inf
            self._said.clear()
            self._compare()
        if self._end is not None and not self._waiting:
            self._command()
        due = min(self._deadline, self._repeat)
        if not self._waiting:  # else its answer comes first
            due = min([due, *self._refused.values()])
        if self._end is None and self._next():
            due = min(due, self._again)
        return max(0.0, due - now)

    def close(self) -> None:
        """Close the connection."""
        self._drop(inf)

    def _compare(self) -> None:
        """Find what is not as it should be; the protocols to enable first."""
        self._behind = {
            name: None
            for name, on in sorted(self._wanted.items(), key=lambda item: not item[1])
            if self._said.get(name) is not on and name not in self._refused
        }

    def _next(self) -> str | None:
        """A protocol that is not as it should be."""
        now = self._clock()
        again = [name for name, at in self._refused.items() if at <= now]
        for name in again:
            del self._refused[name]
        if self._stale:
            self._stale = False
            before = dict.fromkeys(self._wanted, False)
            self._wanted = before | enabled(self._config, self._routes)
            self._compare()
        elif again:
            self._compare()
        return next(iter(self._behind), None)

    def _connect(self) -> None:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.setblocking(False)
        try:
            end.connect(self._config.socket)
        except OSError as error:  # also if BIRD does not accept: its backlog is full
            end.close()
            self._fail(error.strerror or str(error))
            return
        self._end, self._received, self._asked = end, b"", None
        self._await()
        if self._loop is not None:
            self._loop.watch(end, self._receive)

    def _command(self) -> None:
        name = self._next()
        if name is None or self._end is None:
            return
        self._asked = name, self._wanted[name]
        if self._round is None:
            self._round = self._clock()
        try:
            self._end.send(f"{'enable' if self._wanted[name] else 'disable'} {name}\n".encode())
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            self._await()

    def _await(self) -> None:
        self._waiting, self._deadline = True, self._clock() + DEADLINE

    def _receive(self) -> None:
        if self._end is None:
            return
        try:
            data = self._end.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error.strerror or str(error))
            return
        self._received += data
        if not data or len(self._received) > _LONGEST:
            self._fail("it has closed the connection" if not data else "what answers is no BIRD")
            return
        if self._waiting and (last := _LAST.search(self._received)):
            answer, self._received = self._received[: last.end()], self._received[last.end() :]
            self._waiting, self._deadline = False, inf
            self._answered(answer)

    def _answered(self, answer: bytes) -> None:
        if self._asked is None:  # its greeting
            if self._failed:
                self._failed = False
                self._log.info("BIRD answers again", socket=self._config.socket)
            return
        name, on = self._asked
        self._behind.pop(name, None)
        errors = [text for code, text in _CODE.findall(answer) if int(code) >= _ERRORS]
        if errors:
            self._refused[name] = self._clock() + REFUSED
            why = errors[0].decode("utf-8", "replace")
            self._log.error("protocol not switched by BIRD", protocol=name, on=on, why=why)
        else:
            self._said[name] = on
            if self._wanted.get(name) is not on:  # it has changed meanwhile
                self._behind[name] = None
        if self._next() is None:
            now = self._clock()
            if self._repeat == inf:  # else this was a change, or refused before: not everything
                took = now - (now if self._round is None else self._round)
                self._repeat = now + max(REPEAT, _SHARE * took)
            self._round = None

    def _fail(self, why: str) -> None:
        """Close the connection and make it again later: BIRD may have been restarted."""
        if not self._failed:
            self._failed = True
            self._log.error("BIRD cannot be told, tried again", socket=self._config.socket, why=why)
        self._drop(PAUSE)

    def _drop(self, pause: float) -> None:
        self._again = self._clock() + pause
        self._said.clear()
        self._compare()
        self._waiting, self._deadline, self._repeat, self._round = False, inf, inf, None
        if self._end is not None:
            if self._loop is not None:
                self._loop.forget(self._end)
            self._end.close()
            self._end = None


def _section(config: AnnounceConfig) -> BirdConfig:
    if config.bird is None:
        raise ValueError("it has no `bird`")
    return config.bird
