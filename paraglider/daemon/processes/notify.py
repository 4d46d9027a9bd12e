"""Notifications for systemd: sd_notify(3) and its watchdog.

Lives here: ``Notifier``. Without NOTIFY_SOCKET every call does nothing.
Rules: never waits for the manager longer than PATIENCE, and never fails because of it. The
watchdog is fed with the monotonic clock, which no step of the time of day moves.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from math import inf
from typing import Final

#: seconds that a message may wait for room
PATIENCE: Final = 1.0


class Notifier:
    """Speaks to the service manager that ``environment`` names.

    Its variables are taken out of ``environment``, for they concern this process alone: a child
    that inherited them would speak in its name.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        whose = environment.pop("WATCHDOG_PID", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        #: seconds between two signs of life; half of what the manager grants
        self._interval = inf
        if self._address and period.isdigit() and int(period) and whose == str(os.getpid()):
            self._interval = int(period) / 2e6
        self._next = -inf

    def ready(self) -> None:
        """Everything serves; also after ``reloading``."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again, until the next ``ready``."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for people (`systemctl status`); sent when it is another than before."""
        if text != self._status and self._send(f"STATUS={text}"):
            self._status = text

    def beat(self, now: float) -> float:
        """Feed the watchdog when that is due at ``now``; seconds until it is due again."""
        if now >= self._next and (self._interval == inf or self._send("WATCHDOG=1", wait=False)):
            self._next = now + self._interval
        return self._next - now if self._next > now else PATIENCE

    def _send(self, message: str, *, wait: bool = True) -> bool:
        """Whether the manager has ``message``, or there is none."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(PATIENCE if wait else 0)
                sending.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True
