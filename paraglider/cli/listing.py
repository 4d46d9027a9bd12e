"""Lines in columns that fit whatever width there is: what `show` and `top` print.

Lives here: ``Column``, ``Line`` and ``Listing``.
Rules: pure. Where room is short, a column that may be cut is cut, then columns move closer, then
the columns of the highest rank go; what is left has its digits whole. rich's own tables cut all
columns alike, and a number without its end is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_GAPS = (2, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, on which side its cells are (``right``), when it goes (``rank``, the
    highest first; with 0 it stays), and to how many characters it may be cut (``least``).
    """

    title: str
    right: bool = False
    rank: int = 0
    least: int | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A cell a column. The first may reach over ``over`` columns, whose cells are then nothing;
    where it is longer than they are wide, it has a line of its own, and the next begins with
    ``again``.
    """

    cells: Sequence[str | Text]
    over: int = 1
    style: str = ""
    again: str = ""


@dataclass(slots=True)
class Listing:
    """``lines`` under ``columns``."""

    columns: Sequence[Column]
    lines: list[Line] = field(default_factory=list)

    def add(self, *cells: str | Text, over: int = 1, style: str = "", again: str = "") -> None:
        """Add a line."""
        self.lines.append(Line(cells, over, style, again))

    def texts(self, width: int) -> list[Text]:
        """The titles and the lines, none wider than ``width``."""
        widths, gap = self._fit(width)
        head = Line([column.title for column in self.columns], style="bold")
        return [
            text for line in (head, *self.lines) for text in self._put(line, widths, gap, width)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.texts(options.max_width)

    def _fit(self, width: int) -> tuple[dict[int, int], int]:
        """The width of each column that there is room for, and of the gaps between them."""
        widths = {place: self._natural(place) for place in range(len(self.columns))}
        ranks = sorted({column.rank for column in self.columns if column.rank}, reverse=True)
        for rank in (None, *ranks):
            for place, column in enumerate(self.columns):
                if rank is not None and column.rank == rank:
                    del widths[place]
            for gap in _GAPS:
                if (cut := self._cut(widths, gap, width)) is not None:
                    return cut, gap
        return self._least(widths), _GAPS[-1]

    def _cut(self, widths: dict[int, int], gap: int, width: int) -> dict[int, int] | None:
        """``widths``, cut so that they fit ``width``; None where that cannot be."""
        excess = sum(widths.values()) + gap * (len(widths) - 1) - width
        least = self._least(widths)
        fitting = dict(widths)
        for _ in range(excess):  # one at a time from whoever is the widest
            cuttable = [place for place in fitting if fitting[place] > least[place]]
            if not cuttable:
                return None
            fitting[max(cuttable, key=fitting.__getitem__)] -= 1
        return fitting

    def _least(self, widths: dict[int, int]) -> dict[int, int]:
        found = {}
        for place, natural in widths.items():
            least = self.columns[place].least
            found[place] = natural if least is None else min(natural, least)
        return found

    def _natural(self, place: int) -> int:
        lines = [line for line in self.lines if place >= line.over or line.over == 1]
        cells = [self.columns[place].title, *(line.cells[place] for line in lines)]
        return max(_text(cell).cell_len for cell in cells)

    def _put(self, line: Line, widths: dict[int, int], gap: int, width: int) -> list[Text]:
        """``line`` as one text, or two where its first cell is too long."""
        ready: list[Text] = []
        made = Text(no_wrap=True)
        kept = [place for place in widths if place >= line.over]
        if line.over > 1:
            spanned = [widths[place] for place in widths if place < line.over]
            room = sum(spanned) + gap * (len(spanned) - 1)
            first = _text(line.cells[0])
            if first.cell_len > room:
                first.truncate(width, overflow="ellipsis")
                ready.append(first)
                first = Text(line.again)
            made.append_text(_fitted(first, room, right=False))
        else:
            kept = list(widths)
        for place in kept:
            if made.cell_len or line.over > 1:
                made.append(" " * gap)
            cell = _text(line.cells[place])
            made.append_text(_fitted(cell, widths[place], right=self.columns[place].right))
        made.rstrip()
        made.truncate(width)
        ready.append(made)
        for text in ready:
            text.no_wrap = True
            text.stylize_before(line.style)
        return ready


def _text(cell: str | Text) -> Text:
    """``cell`` as a text of its own: brackets are no markup."""
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def _fitted(cell: Text, width: int, *, right: bool) -> Text:
    cell.truncate(width, overflow="ellipsis")
    blank = width - cell.cell_len
    if right:
        cell.pad_left(blank)
    else:
        cell.pad_right(blank)
    return cell
