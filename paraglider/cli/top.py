"""`paraglider top`: services, backends and workers as they are now, again and again.

Lives here: the click command ``top``, and ``Live``, its loop.
Rules: asks the control socket as `show` does and changes nothing. Where standard output is no
terminal there is one frame. However it ends, the terminal is as it was.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click
from rich.console import Group

from paraglider.cli.common_options import control_of, json_option, print_json, put, width
from paraglider.cli.main import Options, config_option
from paraglider.cli.rates import rated
from paraglider.cli.terminal import Terminal, usable
from paraglider.cli.top_screen import SORTS, View, frame, pressed, report, settled
from paraglider.daemon.http.client import Control
from paraglider.daemon.processes.loop import Loop
from paraglider.errors import ParagliderError

#: the signals that end it
_END: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: seconds until the second look, so that rates are there soon
_FIRST: Final = 0.5
#: seconds that an answer may take, in which no key is heard
_PATIENCE: Final = 5.0

Ask = Callable[[], dict[str, Any]]


@click.command()
@click.option("--once", is_flag=True, help="Print one frame after one interval, and exit.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    metavar="SECONDS",
    help="Seconds between two samples. Default: 2.",
)
@click.option("--sort", type=click.Choice(list(SORTS)), default="file", help="Sort order.")
@config_option
@json_option
@click.pass_obj
def top(
    options: Options, once: bool, interval: float, sort: str, config: str | None, as_json: bool
) -> None:
    """Show services, backends and workers with their rates, live.

    Keys: q quits; f, c, p, b, s and o sort by flows, connections, packets, bytes, state and the
    order of the file; r reverses; w puts the workers first; arrows, space and page keys scroll.
    """
    control = Control(control_of(options, config).path, _PATIENCE)

    def ask() -> dict[str, Any]:
        status: dict[str, Any] = control.get("status")
        return status

    view = View(sort)
    if once or as_json or not usable():
        if not (once or as_json):
            print(
                "standard output is no terminal to draw on, so one frame (--once)", file=sys.stderr
            )
        status = look(ask, interval)
        if as_json:
            print_json(status)
        else:
            put(Group(*report(status, view, width())))
        return
    first = ask()  # a mistake is told before the screen is taken over
    with Loop((*_END, signal.SIGWINCH, signal.SIGTSTP)) as loop, Terminal() as terminal:
        ended = Live(ask, first, interval, view, terminal, loop).run()
    if ended is not None:
        signal.raise_signal(ended)  # as whoever sent it expects


def look(ask: Ask, interval: float) -> dict[str, Any]:
    """How things are, with the rates of ``interval`` seconds."""
    before, began = ask(), time.monotonic()
    time.sleep(interval)
    after = ask()
    return rated(before, after, time.monotonic() - began)


class Live:
    """What is on the screen from ``first``, the first look, on."""

    def __init__(
        self,
        ask: Ask,
        first: dict[str, Any],
        interval: float,
        view: View,
        terminal: Terminal,
        loop: Loop,
    ) -> None:
        self._ask = ask
        self._interval = interval
        self._view = view
        self._terminal = terminal
        self._loop = loop
        self._last: dict[str, Any] | None = first
        self._asked = time.monotonic()
        self._status = rated(None, first, 0.0)
        self._note = ""
        self._quit = False

    def run(self) -> signal.Signals | None:
        """Until somebody quits (None), or a signal ends it."""
        if self._terminal.keys is not None:
            self._loop.watch(self._terminal.keys, self._hear)
        due = self._asked + min(_FIRST, self._interval)
        while not self._quit:
            self._draw()
            caught = self._loop.wait(due - time.monotonic())
            for number in _END:
                if number in caught:
                    return number
            if signal.SIGTSTP in caught:
                self._terminal.leave()
                signal.raise_signal(signal.SIGSTOP)
                self._terminal.enter()
            if time.monotonic() >= due:
                self._look()
                due = time.monotonic() + self._interval
        return None

    def _look(self) -> None:
        """Ask again. While there is no answer, what was known stays, and why is said."""
        try:
            after = self._ask()
        except ParagliderError as error:
            self._note, self._last = f"{error}; trying again", None
            return
        now = time.monotonic()
        self._status = rated(self._last, after, now - self._asked)
        self._last, self._asked, self._note = after, now, ""

    def _draw(self) -> None:
        columns, rows = self._terminal.size
        self._terminal.draw(frame(self._status, self._view, columns, rows, self._note))

    def _hear(self) -> None:
        """Keys. None at all means that the terminal is gone."""
        descriptor = self._terminal.keys
        keys = [] if descriptor is None else self._terminal.pressed(descriptor)
        columns, rows = self._terminal.size
        for key in keys:
            view = pressed(self._view, key, max(1, rows - 5))
            self._view = settled(self._status, view, columns, rows)
        self._quit = self._quit or not keys or "q" in keys
