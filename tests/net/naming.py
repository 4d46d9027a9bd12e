"""A name server that has the backends of a topology."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from waiting import wait_until

from paraglider.lab.namespace import Namespace
from paraglider.lab.topology import backend_address

FAMILIES = (4, 6)
NAME, PORT = "_web._tcp.example", 5300


class NameServer:
    """dnsmasq in a namespace: an SRV record whose target has the addresses in ``hosts``."""

    def __init__(self, where: Namespace, hosts: Path) -> None:
        self._where = where
        self._hosts = hosts
        self._process: subprocess.Popen[bytes] | None = None

    def serve(self, *numbers: int) -> None:
        """Answer with these of the topology's backends; all of them have servers."""
        lines = [f"{backend_address(f, n)} web.example\n" for f in FAMILIES for n in numbers]
        self._hosts.write_text("".join(lines))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)  # has it read its hosts again
            return
        command = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv"]
        command += ["--no-hosts", "--user=root", "--pid-file", f"--port={PORT}", "--local-ttl=1"]
        command += ["--listen-address=127.0.0.1", "--bind-interfaces", "--local=/example/"]
        command += [f"--addn-hosts={self._hosts}", f"--srv-host={NAME},web.example,80,10,1"]
        self._process = self._where.popen(command)
        listening = ["ss", "-Hlun", f"sport = {PORT}"]
        wait_until(lambda: self._where.run(listening).stdout)

    def kill(self) -> None:
        """Answer no more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
