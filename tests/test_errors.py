"""Tests of ``paraglider.errors``: the text of an error, and its exit code."""

from __future__ import annotations

import pytest

from paraglider.errors import OperatorError, ParagliderError, PlatformError, as_root


@pytest.mark.parametrize(
    ("kind", "code"), [(OperatorError, 1), (PlatformError, 2), (ParagliderError, 1)]
)
def test_exit_codes_of_errors(kind: type[ParagliderError], code: int) -> None:
    """The operator's mistakes exit 1, the platform's refusals 2."""
    assert kind("a", "b").exit_code == code


@pytest.mark.parametrize(
    ("user", "sudo", "said"),
    [
        (1000, "/usr/bin/sudo", "sudo paraglider show"),
        (1000, None, "paraglider show"),
        (0, "/usr/bin/sudo", "paraglider show"),
        (0, None, "paraglider show"),
    ],
)
def test_sudo_only_where_it_helps(
    monkeypatch: pytest.MonkeyPatch, user: int, sudo: str | None, said: str
) -> None:
    """Not for root, as in a container, and not where there is none."""
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setattr("shutil.which", lambda _name: sudo)
    assert as_root("paraglider show") == said


def test_text_is_what_and_remedy() -> None:
    """An error's text is the mistake, then the remedy."""
    error = OperatorError("no such user `x`", "name another with -U")
    assert str(error) == "no such user `x`; name another with -U"
    assert (error.what, error.remedy) == ("no such user `x`", "name another with -U")


def test_text_without_remedy_has_no_loose_end() -> None:
    """Without a remedy there is no semicolon."""
    assert str(PlatformError("the kernel has no NFQUEUE")) == "the kernel has no NFQUEUE"
