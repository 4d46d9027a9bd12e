"""Text tables that fit the terminal's width, for `show` and `top`.

Lives here: ``Column``, ``TextRow`` and ``TextTable``.
Rules: pure. In a narrow terminal, columns with ``least`` are truncated, then the gaps shrink, then
the columns with the highest rank are left out, then those on the right. Numbers are never
truncated; rich's tables would truncate all columns alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

_GAPS = (2, 1)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, its alignment (``right``), its ``rank`` (the highest is left out first,
    0 last), and the number of characters to which it may be truncated (``least``).
    """

    title: str
    right: bool = False
    rank: int = 0
    least: int | None = None


@dataclass(frozen=True, slots=True)
class TextRow:
    """One cell per column. The first may span ``over`` columns, whose other cells are ignored; if
    it is wider than these, it gets a separate line and the next line begins with ``again``.
    """

    cells: Sequence[str | Text]
    over: int = 1
    style: str = ""
    again: str = ""


@dataclass(slots=True)
class TextTable:
    """A table with ``columns`` and ``lines``."""

    columns: Sequence[Column]
    lines: list[TextRow] = field(default_factory=list)

    def add(self, *cells: str | Text, over: int = 1, style: str = "", again: str = "") -> None:
        """Add a line."""
        self.lines.append(TextRow(cells, over, style, again))

    def texts(self, width: int) -> list[Text]:
        """The titles and the lines, at most ``width`` wide."""
        widths, gap = self._fit(width)
        head = TextRow([column.title for column in self.columns], style="bold")
        return [
            text for line in (head, *self.lines) for text in self._put(line, widths, gap, width)
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.texts(options.max_width)

    def _fit(self, width: int) -> tuple[dict[int, int], int]:
        """The widths of the columns that fit, and of the gaps between them."""
        widths = {place: self._natural(place) for place in range(len(self.columns))}
        ranks = sorted({column.rank for column in self.columns if column.rank}, reverse=True)
        for rank in (None, *ranks):
            for place, column in enumerate(self.columns):
                if rank is not None and column.rank == rank:
                    del widths[place]
            for gap in _GAPS:
                if (cut := self._cut(widths, gap, width)) is not None:
                    return cut, gap
        gap = _GAPS[-1]
        while len(widths) > 1:
            del widths[max(widths)]
            if (cut := self._cut(widths, gap, width)) is not None:
                return cut, gap
        return dict.fromkeys(widths, width), gap

    def _cut(self, widths: dict[int, int], gap: int, width: int) -> dict[int, int] | None:
        """``widths``, reduced to fit ``width``; None if that is impossible."""
        excess = sum(widths.values()) + gap * (len(widths) - 1) - width
        least = self._least(widths)
        fitting = dict(widths)
        for _ in range(excess):  # one at a time from the widest column
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

    def _put(self, line: TextRow, widths: dict[int, int], gap: int, width: int) -> list[Text]:
        """``line`` as one text, or two if its first cell is too long."""
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
    """A copy of ``cell`` as a text; brackets are not markup."""
    return cell.copy() if isinstance(cell, Text) else Text(cell)


def _fitted(cell: Text, width: int, *, right: bool) -> Text:
    cell.truncate(width, overflow="ellipsis")
    blank = width - cell.cell_len
    if right:
        cell.pad_left(blank)
    else:
        cell.pad_right(blank)
    return cell
