"""Which cores carry a worker."""

from __future__ import annotations

import os

import pytest

from paraglider.config.model import Workers
from paraglider.errors import OperatorError
from paraglider.system.cores import worker_cores


def test_by_default_every_allowed_core() -> None:
    """Without an entry in the file, the process's own affinity counts."""
    assert worker_cores(Workers()) == tuple(sorted(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("first", "last", "cores"),
    [
        (None, None, (0, 1, 4, 5)),
        (0, 1, (0, 1)),
        (4, 4, (4,)),
        (1, None, (1, 4, 5)),
        (None, 4, (0, 1, 4)),
    ],
)
def test_a_range_of_the_allowed_cores(
    first: int | None, last: int | None, cores: tuple[int, ...]
) -> None:
    """An end that is left out follows what is allowed, with its gaps."""
    workers = Workers(first_core=first, last_core=last)
    assert worker_cores(workers, {5, 4, 1, 0}) == cores


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (1, 4, "cores 2-3"),
        (0, 6, "cores 2-3, 6"),
        (7, None, "core 7"),
        (None, 9, "core 9"),
    ],
)
def test_a_core_that_is_not_allowed_is_named(
    first: int | None, last: int | None, told: str
) -> None:
    """The message names the cores that are not to be had, and those that are."""
    with pytest.raises(OperatorError) as caught:
        worker_cores(Workers(first_core=first, last_core=last), {5, 4, 1, 0})
    assert f"may not run on {told};" in str(caught.value)
    assert "choose from cores 0-1, 4-5" in str(caught.value)


def test_a_backward_range_is_refused() -> None:
    """first_core above last_core is told with the range turned round."""
    with pytest.raises(OperatorError, match=r"write \{first_core: 0, last_core: 1\}"):
        worker_cores(Workers(first_core=1, last_core=0), {0, 1})
