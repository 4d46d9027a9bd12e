"""`paraglider stop` without a set-up; the rest is in ``test_start``."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.root
def test_nothing_started_is_no_error(run_in: Any) -> None:
    """Exit code 0, with a message, for any file: it is not read."""
    assert run_in("paraglider", "stop").stdout == "nothing is started\n"
    assert run_in("paraglider", "-config", "/no/file", "stop").stdout == "nothing is started\n"
    assert run_in("paraglider", "stop", "--dry-run").stdout == "# nothing is started\n"


@pytest.mark.root
def test_what_the_set_up_made_stays(write: Any, run_in: Any, snapshot: Any) -> None:
    """Its undo is another command, which is named."""
    run_in("paraglider.cli.setup_host", "-4", "-c", write())
    try:
        assert "`paraglider.config --undo` undoes" in run_in("paraglider", "stop").stdout
        assert "PARAGLIDER" in snapshot()
    finally:
        run_in("paraglider.cli.setup_host", "--undo")
