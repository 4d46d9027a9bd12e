"""`paraglider node drain [--wait SECONDS] | ready | show`: takes this balancer out, for a change.

A drained balancer serves as before. `paraglider health` tells it to the program that announces the
VIPs, which leads packets to other balancers; `--wait` waits for that.

Lives here: the click group ``node``, and ``await_silence``.
Rules: sends the request to the control socket and prints the answer. No request waits long, since
a daemon that hangs must not hold up the end of its unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import click

from paraglider.cli import tables
from paraglider.cli.choices import CommandGroup
from paraglider.cli.common_options import control_client, json_option, print_json
from paraglider.cli.durations import DurationRange
from paraglider.cli.main import Options, config_option
from paraglider.daemon.http.client import ControlClient
from paraglider.errors import PlatformError

#: seconds without a packet after which no more are expected: the counters are up to a second old
SILENCE: Final = 2.0
#: seconds between two readings of the counters
_PAUSE: Final = 0.25
#: timeout of a request in seconds
_TIMEOUT: Final = 5.0


@click.group(cls=CommandGroup)
def node() -> None:
    """Drain this balancer before a change, or have it announced again after it."""


@node.command(short_help="Have this balancer no longer announced.")
@click.option(
    "--wait",
    type=DurationRange(0, 86400),
    default=0.0,
    metavar="SECONDS",
    help="Wait until no packets come any more, at most so long: 30, 30s or 2m.",
)
@click.option(
    "--until-restart", is_flag=True, help="Only until the daemon ends; the next one is ready."
)
@config_option
@json_option
@click.pass_obj
def drain(
    options: Options, wait: float, until_restart: bool, config: str | None, as_json: bool
) -> None:
    """Have `paraglider health` tell those who announce the VIPs to send packets elsewhere.

    Flows go on, and so do new connections that still come. It holds until `paraglider node ready`,
    over restarts of the daemon too, but not over a reboot.
    """
    control = _client(options, config)
    answer = _set(control, state="drain", until_restart=until_restart)
    if not as_json:
        print(tables.drained(answer), flush=True)
    if not wait:
        if as_json:
            print_json(answer)
        return

    def count() -> int | None:
        try:
            return packets(control.get("services"))
        except PlatformError:  # a process is being replaced, for example
            return None

    silent = await_silence(count, wait)
    if as_json:
        print_json({**answer, "silent": silent})
    else:
        print("no packets come any more" if silent else f"packets may still come after {wait:g} s")


@node.command(short_help="End the drain.")
@config_option
@json_option
@click.pass_obj
def ready(options: Options, config: str | None, as_json: bool) -> None:
    """Have this balancer announced again, if its health permits it."""
    _print(_set(_client(options, config), state="ready"), as_json=as_json)


@node.command(short_help="Print whether this balancer is drained.")
@config_option
@json_option
@click.pass_obj
def show(options: Options, config: str | None, as_json: bool) -> None:
    """Print ready, or draining, for how long and until when."""
    _print(_client(options, config).get("node"), as_json=as_json)


def packets(services: Iterable[tables.Row]) -> int | None:
    """A number that grows with the packets of clients; None if those of a service are not counted
    here.
    """
    found = 0
    for row in services:
        seen, conns = (row["packets_in"], row["bytes_in"]), row["conns"] or 0
        if conns and seen == (None, None):
            return None
        found += conns + sum(count or 0 for count in seen)
    return found


def await_silence(
    count: Callable[[], int | None],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """Wait until ``count()`` has stayed the same for SILENCE seconds, at most ``seconds``; returns
    whether it has. None is never the same.
    """
    begun = clock()
    before, since = count(), clock()
    while (left := begun + seconds - clock()) > 0:
        sleep(min(_PAUSE, left))
        found = count()
        if found is None or found != before:
            before, since = found, clock()
        elif clock() - since >= SILENCE:
            return True
    return False


def _client(options: Options, config: str | None) -> ControlClient:
    return ControlClient(control_client(options, config).path, _TIMEOUT)


def _set(control: ControlClient, **change: str | bool) -> dict[str, Any]:
    answer: dict[str, Any] = control.post("node", change)
    return answer


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        print(tables.drained(answer))
