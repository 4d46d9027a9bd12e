"""What the tests of the carrier's program share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bpf.carrying import OBJECT, Bed, make_bed
from tests.bpf.deciding import Deciding


@pytest.fixture(scope="module", params=["tc", "xdp"])
def module_bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """The programs in the kernel for all tests of a module, whose flows and origins stay: the one
    at tc alone, or behind the one at XDP.
    """
    if not OBJECT.exists():
        pytest.fail(f"no {OBJECT}: run scripts/bootstrap")
    with make_bed() as bed:
        bed.hook = request.param
        yield bed


@pytest.fixture
def bed(module_bed: Bed) -> Bed:
    """The programs in the kernel, with no flows and no origins."""
    module_bed.clear()
    return module_bed


@pytest.fixture
def deciding(bed: Bed) -> Iterator[Deciding]:
    """A service about which the program may decide, and no flows."""
    found = Deciding(bed)
    yield found
    found.close()
