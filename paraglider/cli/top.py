"""`paraglider top`: services, backends and workers with rates, refreshed periodically.

Lives here: the click command ``top``, and ``TopLoop``, its loop.
Rules: queries the control socket as `show` does and changes nothing. If standard output is not a
terminal, prints one screen and exits. The terminal is always restored.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import click
from rich.console import Group

from paraglider.cli.choices import Choice
from paraglider.cli.common_options import (
    control_client,
    json_option,
    print_json,
    print_table,
    width,
)
from paraglider.cli.durations import DurationRange
from paraglider.cli.main import Options, config_option
from paraglider.cli.rates import rated
from paraglider.cli.terminal import Terminal, usable
from paraglider.cli.top_screen import SORTS, TopView, handle_key, report, screen_lines, settled
from paraglider.daemon.http.client import ControlClient
from paraglider.daemon.processes.loop import Loop
from paraglider.errors import ParagliderError

#: signals that end the program
_END: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: seconds until the second sample, which gives the first rates
_FIRST: Final = 0.5
#: timeout of a request in seconds; no key is read meanwhile
_TIMEOUT: Final = 5.0

Ask = Callable[[], dict[str, Any]]


@click.command()
@click.option("--once", is_flag=True, help="Print one frame after one interval, and exit.")
@click.option(
    "--interval",
    type=DurationRange(0.1, 3600),
    default=2.0,
    metavar="SECONDS",
    help="Seconds, or such as 500ms, between two samples. Default: 2.",
)
@click.option("--sort", type=Choice(list(SORTS)), default="file", help="Sort order.")
@config_option
@json_option
@click.pass_obj
def top(
    options: Options, once: bool, interval: float, sort: str, config: str | None, as_json: bool
) -> None:
    """Show services, backends and workers with their rates, live.

    Keys: q quits; f, c, p, b, s and o sort by flows, connections, packets, bytes, state and the
    order of the file; r reverses; w shows the workers first; arrows, space and page keys scroll.
    """
    control = ControlClient(control_client(options, config).path, _TIMEOUT)

    def ask() -> dict[str, Any]:
        status: dict[str, Any] = control.get("status")
        return status

    view = TopView(sort)
    if once or as_json or not usable():
        if not (once or as_json):
            print(
                "standard output is not a terminal: printing one screen (--once)", file=sys.stderr
            )
        status = sample(ask, interval)
        if as_json:
            print_json(status)
        else:
            print_table(Group(*report(status, view, width())))
        return
    first = ask()  # errors are printed before full-screen mode
    with Loop((*_END, signal.SIGWINCH, signal.SIGTSTP)) as loop, Terminal() as terminal:
        ended = TopLoop(ask, first, interval, view, terminal, loop).run()
    if ended is not None:
        signal.raise_signal(ended)  # exit by the signal


def sample(ask: Ask, interval: float) -> dict[str, Any]:
    """The status, with the rates over ``interval`` seconds."""
    before, began = ask(), time.monotonic()
    time.sleep(interval)
    after = ask()
    return rated(before, after, time.monotonic() - began)


class TopLoop:
    """Refreshes the screen; ``first`` is the first status."""

    def __init__(
        self,
        ask: Ask,
        first: dict[str, Any],
        interval: float,
        view: TopView,
        terminal: Terminal,
        loop: Loop,
    ) -> None:
        self._ask = ask
        self._interval = interval
        self._view = view
        self._terminal = terminal
        self._loop = loop
        self._last: dict[str, Any] | None = first
        self._sampled = time.monotonic()
        self._status = rated(None, first, 0.0)
        self._note = ""
        self._quit = False

    def run(self) -> signal.Signals | None:
        """Run until the key q (None), or until a signal, which is returned."""
        if self._terminal.keys is not None:
            self._loop.watch(self._terminal.keys, self._read_keys)
        due = self._sampled + min(_FIRST, self._interval)
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
                self._refresh()
                due = time.monotonic() + self._interval
        return None

    def _refresh(self) -> None:
        """Query the daemon. While it does not answer, keep the last status and show the error."""
        try:
            after = self._ask()
        except ParagliderError as error:
            self._note, self._last = f"{error}; retrying", None
            return
        now = time.monotonic()
        self._status = rated(self._last, after, now - self._sampled)
        self._last, self._sampled, self._note = after, now, ""

    def _draw(self) -> None:
        columns, rows = self._terminal.size
        self._terminal.draw(screen_lines(self._status, self._view, columns, rows, self._note))

    def _read_keys(self) -> None:
        """Handle keys. No keys at all means that the terminal was closed."""
        descriptor = self._terminal.keys
        keys = [] if descriptor is None else self._terminal.read_keys(descriptor)
        columns, rows = self._terminal.size
        for key in keys:
            view = handle_key(self._view, key, max(1, rows - 5))
            self._view = settled(self._status, view, columns, rows)
        self._quit = self._quit or not keys or "q" in keys
