"""What all tests share: tests marked ``root`` are skipped, with the reason, without root."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs root when there is none."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run sudo scripts/test")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)
