"""Tables in a narrow terminal: truncation, gaps, omitted columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from paraglider.cli.listing import Column, TextTable

COLUMNS = (
    Column("Name", least=4),
    Column("Packets", right=True, rank=2),
    Column("Bytes", right=True, rank=1),
    Column("Check", least=5),
)


def shown(listing: TextTable, width: int) -> list[str]:
    """The lines for ``width`` columns."""
    return [text.plain for text in listing.texts(width)]


@pytest.fixture
def listing() -> TextTable:
    """Two lines, 35 characters wide."""
    made = TextTable(COLUMNS)
    made.add("backend1", "123456", "99", "passed 1s")
    made.add("b2", "1", "12345678", "failed")
    return made


def test_what_fits_is_whole(listing: TextTable) -> None:
    """Words to the left, numbers to the right, no blanks at the end."""
    assert shown(listing, 100) == [
        "Name      Packets     Bytes  Check",
        "backend1   123456        99  passed 1s",
        "b2              1  12345678  failed",
    ]


def test_the_order_in_which_room_is_made(listing: TextTable) -> None:
    """First truncation, then smaller gaps, then the column of the highest rank is omitted."""
    assert shown(listing, 31)[1] == "back…   123456        99  pass…"
    assert shown(listing, 28)[1] == "back…  123456       99 pass…"
    assert shown(listing, 26)[:2] == ["Name        Bytes  Check", "backen…        99  passed…"]
    assert shown(listing, 12)[:2] == ["Name   Check", "back…  pass…"]
    assert shown(listing, 9)[:2] == ["Name", "backend1"]
    assert shown(listing, 3)[:2] == ["Na…", "ba…"]


@pytest.mark.parametrize("width", [1, 5, 10, 11, 20, 33, 80])
def test_no_line_is_wider_than_there_is_room(listing: TextTable, width: int) -> None:
    """For any width."""
    listing.add("a service with a long name", "", "5", "", over=2)
    assert max(map(cell_len, shown(listing, width))) <= width


def test_numbers_keep_their_digits(listing: TextTable) -> None:
    """A number is complete or its column is omitted."""
    for width in range(1, 60):
        head, *lines = shown(listing, width)
        for title, number, line in (("Packets", "123456", 0), ("Bytes", "12345678", 1)):
            whole = number in lines[line].split()
            assert whole == (title in head.split())
            assert whole or number[:2] not in lines[line].split(maxsplit=1)[-1]


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), min_size=1, max_size=6),
    st.integers(1, 60),
)
def test_any_columns_in_any_width(columns: list[tuple[int, int]], width: int) -> None:
    """Each number is whole or its column is left out with its title; the first column stays."""
    listing = TextTable(
        [Column(f"T{n}", right=n > 0, rank=rank if n else 0) for n, (_, rank) in enumerate(columns)]
    )
    cells = [str(n) * digits for n, (digits, _) in enumerate(columns)]
    listing.add(*cells)
    head, line = (text.split() for text in shown(listing, width))
    assert len(head) == len(line) >= 1
    kept = {title: cell for title, cell in zip(head, line, strict=True) if title != head[0]}
    assert all(cells[int(title[1:])] == cell for title, cell in kept.items())


def test_a_heading_reaches_over_columns(listing: TextTable) -> None:
    """A heading that is too long has its own line; it widens no column."""
    listing.add("web tcp ports 80", "", "7", "", over=2, again="  all")
    assert shown(listing, 100)[-1] == "web tcp ports 80          7"
    listing.add("web tcp 192.168.0.11:80", "", "7", "", over=2, again="  all")
    assert shown(listing, 100)[-2:] == ["web tcp 192.168.0.11:80", "  all                     7"]
    assert shown(listing, 100)[0] == "Name      Packets     Bytes  Check"


def test_brackets_are_no_markup_and_colours_stay(listing: TextTable) -> None:
    """An IPv6 address in brackets is printed; a cell keeps the style that it came with."""
    listing.add("[red]::1", "1", "1", Text("down", "red"))
    console = Console(width=60, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as capture:
        console.print(listing)
    last = capture.get().splitlines()[-1]
    assert "[red]::1" in last
    assert "\x1b[31mdown\x1b[0m" in last


def test_a_cell_is_not_changed_by_being_shown() -> None:
    """The same listing gives the same lines again, also after a narrow one."""
    listing = TextTable((Column("A", least=2), Column("B")))
    listing.add(Text("long word"), Text("b"))
    before = shown(listing, 80)
    shown(listing, 5)
    assert shown(listing, 80) == before
