"""Notifications for systemd: sd_notify(3) and its watchdog.

Lives here: ``Notifier``. Without NOTIFY_SOCKET every call does nothing.
Rules: never waits for the service manager, and never fails because of it: what it has no room for
is sent again with the next ``beat``, the newest of each kind. The watchdog uses the monotonic
clock, which does not jump.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from math import inf
from typing import Final

#: seconds until a message that found no room is sent again
RETRY: Final = 1.0


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
        self._unsent: dict[str, str] = {}  # by kind, in their order

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
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def beat(self, now: float) -> float:
        """Feed the watchdog if due at ``now``; returns the seconds until it is due again, or
        another message is to be sent again.
        """
        wait = self.flush()
        if now >= self._next and (self._interval == inf or self._write("WATCHDOG=1")):
            self._next = now + self._interval
        return min(wait, self._next - now if self._next > now else RETRY)

    def flush(self) -> float:
        """Send what found no room before; returns the seconds until it is tried again, infinite if
        nothing is left.
        """
        while self._unsent:
            kind = next(iter(self._unsent))
            if not self._write(self._unsent[kind]):
                return RETRY
            del self._unsent[kind]
        return inf

    def _send(self, message: str) -> None:
        """Send ``message`` after those that wait, now or when there is room."""
        kind = message.partition("=")[0]
        self._unsent.pop(kind, None)
        self._unsent[kind] = message
        self.flush()

    def _write(self, message: str) -> bool:
        """Send ``message``; False if there is no room for it. Without a manager it is dropped."""
        if not self._address:
            return True
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.sendto(message.encode(), self._address)
        except BlockingIOError:
            return False
        except OSError:  # nobody listens there
            return True
        return True
