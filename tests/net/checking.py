"""Runs a checker in a network namespace: orders come in, news go out, a line of JSON each.

Started as ``python checking.py`` by ``test_health``. Standard input's end ends it.
"""

from __future__ import annotations

import asyncio
import json
import sys

from paraglider.health.checker import Checker
from paraglider.health.messages import Plain
from paraglider.health.pinger import Pinger


def tell(plain: Plain) -> None:
    """One line of news."""
    sys.stdout.write(json.dumps(plain) + "\n")
    sys.stdout.flush()


async def main() -> None:
    """Check until there are no more orders."""
    checker = Checker(tell, Pinger())
    await checker.start()
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        checker.take(json.loads(line))
    await checker.close()


if __name__ == "__main__":
    asyncio.run(main())
