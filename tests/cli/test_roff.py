"""Text becomes roff with the same content."""

from __future__ import annotations

import pytest

from paraglider.cli.roff import ManPage, escaped


def page() -> ManPage:
    """A page without anything but its head."""
    return ManPage("glide", 8, "about it", "1.2", "2026-01-02")


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("plain", "plain"),
        ("two\n  lines", "two lines"),
        ("`--dry-run` it", r"\fB\-\-dry\-run\fR it"),
        (".TH at the start", r"\&.TH at the start"),
        ("'quoted'", r"\&'quoted'"),
        (r"C:\new", r"C:\enew"),
    ],
)
def test_text_is_no_markup(text: str, roff: str) -> None:
    """Dots, quotes, hyphens and backslashes stay themselves; backticks make bold."""
    assert escaped(text) == roff


def test_the_head() -> None:
    """Name, section, date and version are at their places for man(1)."""
    made = page()
    assert made.file == "man8/glide.8"
    assert '.TH "GLIDE" "8" "2026-01-02" "paraglider 1.2" ""' in str(made)
    assert str(made).endswith('.SH "NAME"\nglide \\- about it\n')


def test_a_wrapped_line_is_no_macro() -> None:
    """A dot at the start of a wrapped line stays a dot."""
    made = page()
    made.heading("h")
    made.text("x" * 78 + " .so /etc/passwd")
    assert str(made).endswith("\n\\&.so /etc/passwd\n")


def test_paragraphs() -> None:
    """An empty line separates two; the first one after a heading needs no macro."""
    made = page()
    made.heading("h")
    made.text("one\n\ntwo")
    assert str(made).endswith('.SH "H"\none\n.PP\ntwo\n')
