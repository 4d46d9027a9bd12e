"""`paraglider announce`: announces the VIPs to routers, by ExaBGP, BIRD or a program.

Lives here: the click command ``announce``. The process is ``announcer.resident``.
Rules: reads the file as the user that started it, and then keeps no privilege. stdout is for ExaBGP
and the dry run.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final, Literal

import click

from paraglider.announcer import bird, programs, resident
from paraglider.announcer.exabgp import ExabgpOutput, lines
from paraglider.announcer.routes import VipChange
from paraglider.cli.main import Options, config_option
from paraglider.config.announce import AnnounceConfig
from paraglider.config.model import Config
from paraglider.config.places import find_config
from paraglider.config.steps import completed
from paraglider.daemon import log
from paraglider.errors import OperatorError
from paraglider.host import privileges
from paraglider.host.checks import check_user

Way = Literal["exabgp", "bird", "exec"]

_WAYS: Final[tuple[Way, ...]] = ("exabgp", "bird", "exec")


@click.command()
@click.option("--exabgp", is_flag=True, help="Tell ExaBGP, which starts this as a process.")
@click.option("--bird", "by_bird", is_flag=True, help="Tell BIRD, at its control socket.")
@click.option("--exec", "by_exec", is_flag=True, help="Run the program of the file.")
@click.option("--dry-run", is_flag=True, help="Print what would be told now, and exit.")
@config_option
@click.pass_obj
def announce(
    options: Options,
    exabgp: bool,
    by_bird: bool,
    by_exec: bool,
    dry_run: bool,
    config: str | None,
) -> None:
    """Announce the VIPs to routers while the daemon serves them, until SIGTERM.

    The section `announce` of the file says which and how. Withdraws them at the end.
    """
    path = Path(find_config(config or options.config)).resolve()
    found = completed(resident.reading(path, options.families))
    section = resident.section_of(found)
    given = [way for way, on in zip(_WAYS, (exabgp, by_bird, by_exec), strict=True) if on]
    way = _way(given, section)
    if dry_run:
        _print(way, section, resident.once(found))
        return
    log.set_up(options.debug, options.log_style)
    output = _output(way, section)
    _drop_privileges(found)
    log.logger().info("announcing", by=way, vips=len(found.announced), config=str(path))
    process = resident.Resident(found, output, lambda: resident.reading(path, options.families))
    with resident.loop() as loop:
        process.run(loop, stdin=way == "exabgp")
    log.logger().info("ended")


def _way(given: list[Way], section: AnnounceConfig) -> Way:
    """What to tell: ``given`` on the command line, or by the file."""
    if len(given) > 1:
        raise click.UsageError("give --exabgp, --bird or --exec, one of them")
    way = given[0] if given else section.via
    if way is None:
        raise click.UsageError("give --exabgp, --bird or --exec, or write `via` under `announce`")
    if way == "bird" and section.bird is None:
        raise OperatorError("`announce` has no `bird`", "add bird: {protocols: {4: NAME, 6: NAME}}")
    if way == "exec" and not section.exec:
        raise OperatorError("`announce` has no `exec`", "add exec: [/etc/paraglider/announce]")
    return way


def _output(way: Way, section: AnnounceConfig) -> resident.Output:
    if way == "exabgp":
        return ExabgpOutput(section)
    return bird.BirdOutput(section) if way == "bird" else programs.ProgramOutput(section)


def _drop_privileges(config: Config) -> None:
    """Become the announcer's user, if this one is root; keep no capability in any case."""
    if os.geteuid() != 0:
        privileges.renounce()
    elif config.announcer is not None:
        uid, gid = check_user(config.announcer, "control.announcer")
        if uid == 0:
            privileges.limit()
        else:
            privileges.drop(uid, gid, "/", keep=())


def _print(way: Way, section: AnnounceConfig, changes: list[VipChange]) -> None:
    if way == "bird" and section.bird is not None:
        routes = {change.vip: change.route for change in changes}
        for name, on in bird.enabled(section.bird, routes).items():
            print(f"{'enable' if on else 'disable'} {name}")
        return
    for change in changes:
        if way == "exec":
            print(shlex.join(programs.arguments(section, change)))
        else:
            for line in lines(section, change.vip, change.route):
                print(line)
