"""conntrackd on the two balancers of a lab: each kernel gets the connections of the other.

Lives here: ``conntrackd_configuration`` (pure) and ``Conntrackd``.
Rules: the configuration is that of conf/conntrackd.conf, with the lab's addresses and files. A
balancer without power loses what its kernel has.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from paraglider.lab.fleet_topology import back_address, front_address
from paraglider.lab.member import Member
from paraglider.lab.programs import start_and_await
from paraglider.netfilter.conntrack import Conntrack

PROGRAM: Final = "conntrackd"
#: a connection that returns has left the window that this kernel knows
LIBERAL: Final = "net.netfilter.nf_conntrack_tcp_be_liberal=1"

_FILE: Final = """\
Sync {{
    Mode FTFW {{
        DisableExternalCache on
        StartupResync on
    }}
    UDP {{
        IPv4_address {own}
        IPv4_Destination_Address {other}
        Port 3780
        Interface eth1
        SndSocketBuffer 1249280
        RcvSocketBuffer 1249280
        Checksum on
    }}
    Options {{
        TCPWindowTracking off
    }}
}}

General {{
    HashSize 32768
    HashLimit 262144
    LogFile {directory}/conntrackd.log
    Syslog off
    LockFile {directory}/conntrackd.lock
    UNIX {{
        Path {directory}/conntrackd.ctl
    }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    Filter From Kernelspace {{
        Protocol Accept {{
            TCP
            UDP
        }}
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv6_address ::1
{ignored}
        }}
    }}
}}
"""


def conntrackd_configuration(number: int, directory: Path) -> str:
    """The file of balancer ``number`` of two, whose files are in ``directory``."""
    own = [
        f"            IPv{family}_address {address}"
        for family in (4, 6)
        for address in (front_address(family, number), back_address(family, 200 + number))
    ]
    return _FILE.format(
        own=back_address(4, 200 + number),
        other=back_address(4, 203 - number),
        directory=directory,
        ignored="\n".join(own),
    )


class Conntrackd:
    """conntrackd on each balancer."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self, member: Member) -> None:
        """Start it and wait until it answers; raises ``PlatformError``."""
        file = member.directory / "conntrackd.conf"
        file.write_text(conntrackd_configuration(member.number, member.directory), encoding="utf-8")
        command = [PROGRAM, "-C", str(file)]
        self._running[member.number] = start_and_await(
            member.host, command, [*command, "-s"], member.directory / "conntrackd.out"
        )

    def cut(self, member: Member) -> None:
        """End it, and empty the kernel's table: ``member`` has lost its power."""
        running = self._running.pop(member.number)
        running.kill()
        running.wait()
        (member.directory / "conntrackd.lock").unlink(missing_ok=True)
        (member.directory / "conntrackd.ctl").unlink(missing_ok=True)
        with member.host.entered():
            Conntrack().forget([0], mask=0)  # all
