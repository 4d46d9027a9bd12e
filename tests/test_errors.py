"""Tests of ``paraglider.errors``: what an error says, and the exit code it stands for."""

from __future__ import annotations

import pytest

from paraglider.errors import OperatorError, ParagliderError, PlatformError


@pytest.mark.parametrize(
    ("kind", "code"), [(OperatorError, 1), (PlatformError, 2), (ParagliderError, 1)]
)
def test_exit_code_tells_whose_fault_it_is(kind: type[ParagliderError], code: int) -> None:
    """The operator's mistakes exit 1, the platform's refusals 2."""
    assert kind("a", "b").exit_code == code


def test_text_is_what_and_remedy() -> None:
    """An error reads as what is wrong, then what would be right."""
    error = OperatorError("no such user `x`", "name another with -U")
    assert str(error) == "no such user `x`; name another with -U"
    assert (error.what, error.remedy) == ("no such user `x`", "name another with -U")


def test_text_without_remedy_has_no_loose_end() -> None:
    """Without a remedy no semicolon is left over."""
    assert str(PlatformError("the kernel has no NFQUEUE")) == "the kernel has no NFQUEUE"
