"""What all tests share: properties draw the same examples every time; without root, tests marked
``root`` are skipped, with the reason.

``scripts/test --hypothesis-profile=explore`` draws other examples at every run.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Explored on purpose, not by whoever happens to run the tests: a run says the same of one tree
# each time, and no example has a time to keep on a machine that others use too.
settings.register_profile("explore", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root when there is none."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run sudo scripts/test")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
