"""Tests of ``paraglider.config.importers.render``; whole outputs are in ``test_formats``."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from paraglider.config.diagnostics import Mark
from paraglider.config.importers.draft import Draft
from paraglider.config.importers.render import render

AT = Mark(1, 1)


def test_order_comments_and_notes() -> None:
    """Keys are in the model's order, comments beside them, notes above their keys."""
    draft = Draft()
    service = ("services", 0)
    draft.set((*service, "backends", 0, "address"), "10.0.0.1", AT)
    draft.set((*service, "backends", 1), {}, AT, "the second")
    draft.set((*service, "backends", 1, "weight"), 3, AT)
    draft.set((*service, "backends", 1, "address"), "fd00::1", AT)
    draft.set((*service, "vip"), "192.0.2.1/24", AT)
    draft.set((*service, "name"), "no", AT, "called so")
    draft.set(("user",), "bob", AT)
    draft.set(("failover", "enabled"), True, AT)
    draft.note(Mark(9, 2), "odd; look", service)
    draft.note(Mark(8, 2), "all odd; look")
    assert render(draft, "/x/in", "a test") == (
        "# yaml-language-server: $schema=paraglider.schema.json\n"
        "#\n"
        "# Made by `paraglider import` from 'in': a test.\n"
        "# line 8: all odd; look\n"
        "\n"
        "user: bob\n"
        "\n"
        "failover:\n"
        "  enabled: true\n"
        "\n"
        "services:\n"
        "  # line 9: odd; look\n"
        '  - name: "no"  # called so\n'
        "    vip: 192.0.2.1/24\n"
        "    backends:\n"
        "      - 10.0.0.1\n"
        '      - {address: "fd00::1", weight: 3}  # the second\n'
    )


def test_notes_name_an_included_file() -> None:
    """Whatever it is called, on one line."""
    draft = Draft(data={"user": "x"})
    draft.note(Mark(2, 1, "conf.d/a\nb"), "odd; look")
    text = render(draft, "f", "t")
    assert "# line 2 of 'conf.d/a\\nb': odd; look\n" in text
    assert yaml.safe_load(text) == {"user": "x"}


@pytest.mark.parametrize("name", ["a\nb: c", "\u2028", "x" * 500, "#", "é", "\udc80"])
def test_name_of_the_file_stays_in_its_comment(name: str) -> None:
    """With any file name, the output is the same YAML."""
    text = render(Draft(data={"user": "x"}), name, "a test")
    assert yaml.safe_load(text.encode()) == {"user": "x"}


TEXTS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=20)


@given(TEXTS | st.integers() | st.booleans())
def test_every_value_is_read_back(value: object) -> None:
    """A value that YAML could read as another type is quoted."""
    assert yaml.safe_load(render(Draft(data={"user": value}), "f", "t")) == {"user": value}
