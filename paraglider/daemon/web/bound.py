"""The socket of the stats page: bound by the parent, before privileges are dropped.

Rules: a port in use is an operator's error, raised before anything runs. The socket outlives the
http process, so that its successor continues with it.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from paraglider.config.types import parse_endpoint
from paraglider.errors import OperatorError
from paraglider.forward.proxy.listeners import find_listener

_BACKLOG: Final = 128
#: send buffer in bytes, for a client that does not read; the kernel doubles it (socket(7))
_SEND_BUFFER: Final = 128 << 10
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


class StatsSocket:
    """A TCP socket that listens at ``bind`` (ADDRESS:PORT); raises ``OperatorError``."""

    def __init__(self, bind: str) -> None:
        address, port = parse_endpoint(bind)
        self.listening = socket.socket(_FAMILY[address.version], socket.SOCK_STREAM)
        try:
            self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What is accepted inherits it (net/core/sock.c, sk_clone_lock).
            self.listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            if address.version == 6:
                self.listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.listening.bind((str(address), port))
            self.listening.listen(_BACKLOG)
        except OSError as error:
            self.listening.close()
            if error.errno == errno.EADDRINUSE:
                holder = find_listener(address, port)
                what = f"`stats.bind`: {bind} is in use" + (f" by {holder}" if holder else "")
                raise OperatorError(what, "stop that, or bind to another port") from error
            what = f"`stats.bind`: {bind} cannot be listened on: {error.strerror}"
            remedy = 'name an address that this host has, such as "127.0.0.1:9777"'
            raise OperatorError(what, remedy) from error

    def close(self) -> None:
        """Stop listening."""
        self.listening.close()
