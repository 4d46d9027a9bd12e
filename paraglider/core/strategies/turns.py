"""The order of turns: each backend as often as its weight says, interleaved.

Lives here: ``interleaved``, for the tables of ``maglev`` and of ``wrr`` in the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence


def interleaved(weights: Sequence[int], size: int) -> list[int]:
    """The order of ``size`` turns, as indices into ``weights``, which are above 0: turn n of a
    backend of weight w is at the time (n - ½) / w.

    With equal weights the backends alternate, as in the paper on maglev; shares are exact except
    for rounding; and the times of a backend do not depend on the weights of the others.
    """
    total = sum(weights)
    # Rounding costs no backend more than half a turn: by (size + len / 2) / total all are taken.
    ample = 2 * size + len(weights)
    turns = [
        ((2 * n + 1) / weight, index)
        for index, weight in enumerate(weights)
        for n in range(ample * weight // (2 * total) + 1)
    ]
    turns.sort()
    return [index for _, index in turns[:size]]
