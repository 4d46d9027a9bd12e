"""keepalived on the two balancers of a lab (docs of the file: conf/keepalived.conf).

Lives here: ``keepalived_configuration`` (pure) and ``Keepalived``, an ``AddressMover``.
Rules: the files are in the lab's directory. Everything is said five times a second, so that the
other balancer takes over in less than a second.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import Final

from paraglider.lab.member import Member
from paraglider.lab.vrrp import addresses, give_up

PROGRAM: Final = "keepalived"
_LINK_LOCAL: Final = "fe80::51/64 dev eth0"  # VRRP over IPv6 announces one first

_FILE: Final = """\
global_defs {{
    script_user root
    vrrp_version 3
}}

vrrp_script paraglider {{
    script "{check}"
    interval 1
    timeout 5
    fall 1
    rise 1
    weight -100
}}

vrrp_sync_group balancer {{
    group {{
        balancer4
        balancer6
    }}
    track_script {{
        paraglider
    }}
}}
"""

_INSTANCE: Final = """
vrrp_instance balancer{family} {{
    interface eth0
    state BACKUP
    virtual_router_id 51
    priority {priority}
    advert_int 0.2
    virtual_ipaddress {{
        {addresses}
    }}
    track_interface {{
        eth1
    }}
}}
"""


def keepalived_configuration(number: int, command: Sequence[str], *, through: bool) -> str:
    """The file of balancer ``number``, whose `paraglider` is ``command``; ``through`` as for
    ``addresses``.
    """
    # By env: keepalived follows links to a program, and a virtual environment's Python is one.
    check = shlex.join(["/usr/bin/env", *command, "health", "--node", "--exit-code"])
    text = _FILE.format(check=check)
    for family in (4, 6):
        moved = addresses(family, through=through)
        text += _INSTANCE.format(
            family=family,
            priority=150 if number == 1 else 100,
            addresses="\n        ".join(moved if family == 4 else [_LINK_LOCAL, *moved]),
        )
    return text


class Keepalived:
    """keepalived on each balancer."""

    def __init__(self, *, through: bool) -> None:
        self._through = through
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self, member: Member) -> None:
        """See ``AddressMover``."""
        place = member.directory
        file = place / "keepalived.conf"
        text = keepalived_configuration(member.number, member.command, through=self._through)
        file.write_text(text, encoding="utf-8")
        command = [PROGRAM, "--dont-fork", "--vrrp", "--log-console", "--no-syslog"]
        command += [f"--use-file={file}", f"--pid={place / 'keepalived.pid'}"]
        # From 2.3 on it looks at the file of a process that it does not start, too.
        command += [f"--vrrp_pid={place / 'vrrp.pid'}", f"--bfd_pid={place / 'bfd.pid'}"]
        with (place / "keepalived.log").open("ab") as log:
            self._running[member.number] = member.host.popen(command, stdout=log, stderr=log)

    def cut(self, member: Member) -> None:
        """See ``AddressMover``: without cables nobody hears that it ends."""
        running = self._running.pop(member.number)
        running.terminate()
        running.wait()
        give_up(member.host, through=self._through)

    def close(self) -> None:
        """See ``AddressMover``."""
        for running in self._running.values():
            running.terminate()
        while self._running:
            self._running.popitem()[1].wait()
