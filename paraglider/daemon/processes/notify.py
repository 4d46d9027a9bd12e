"""Notifications for systemd: sd_notify(3) and its watchdog.

Lives here: ``Notifier``. Without NOTIFY_SOCKET every call does nothing.
Rules: never waits for the service manager longer than PATIENCE, and never fails because of it. The
watchdog uses the monotonic clock, which does not jump.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from math import inf
from typing import Final

#: seconds to wait for room for a message
PATIENCE: Final = 1.0


class Notifier:
    """Notifies the service manager that ``environment`` names.

    Removes its variables from ``environment``, since a child that inherited them could send
    notifications in this process's name.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        whose = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        #: seconds between two watchdog notifications; half of WATCHDOG_USEC
        self._interval = inf
        if self._address and period.isdigit() and int(period) and whose == str(os.getpid()):
            self._interval = int(period) / 2e6
        self._next = -inf

    def ready(self) -> None:
        """All processes are ready; also after ``reloading``."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload has begun; ``ready`` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The daemon is stopping."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Send a line for `systemctl status`, if it has changed."""
        if text != self._status and self._send(f"STATUS={text}"):
            self._status = text

    def beat(self, now: float) -> float:
        """Feed the watchdog if due at ``now``; returns the seconds until it is due again."""
        if now >= self._next and (self._interval == inf or self._send("WATCHDOG=1", wait=False)):
            self._next = now + self._interval
        return self._next - now if self._next > now else PATIENCE

    def _send(self, message: str, *, wait: bool = True) -> bool:
        """Send ``message``; returns whether it was sent, or there is no manager."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(PATIENCE if wait else 0)
                sending.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True
