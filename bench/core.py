"""Measures the core, with one process per build and strategy (``core_probe``)."""

from __future__ import annotations

from bench import builds
from bench.results import CoreResult
from paraglider.core.strategies import KINDS
from paraglider.errors import ParagliderError
from paraglider.lab.namespace import execute

BUILT_IN = tuple(KINDS)
STRATEGIES = (*BUILT_IN, "bench_policy:First")  # the last one is a user's own (``core_probe``)
TIMEOUT = 300.0  # seconds a probe may take


def measure(build: str, strategy: str, sizes: tuple[int, ...]) -> CoreResult:
    """The result of ``build`` with ``strategy``, or why it cannot be measured."""
    if (why := builds.missing(build)) is not None:
        return CoreResult(build, strategy, missing=why)
    command = builds.command(build, "-m", "bench.core_probe", strategy, *map(str, sizes))
    try:
        result = CoreResult.from_json(execute(command, timeout=TIMEOUT).stdout)
    except ParagliderError as error:
        last = str(error).strip().splitlines()[-1]
        return CoreResult(build, strategy, missing=f"failed: {last}")
    if result.build != build:  # an edited source since we asked
        return CoreResult(build, strategy, missing=f"it ran {result.build}")
    return result
