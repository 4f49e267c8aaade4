"""Tables that show themselves: as aligned text in a terminal, as HTML in a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Bar:
    """A cell that is a bar, as long as ``fraction`` of the cell.

    >>> str(Bar(0.75))
    '######  '
    """

    fraction: float

    def __str__(self) -> str:
        return f"{'#' * round(8 * self.fraction):<8}"

    def _repr_html_(self) -> str:
        bar = f"width:{100 * self.fraction:.1f}%;height:0.7em;background:currentColor;opacity:0.45"
        return f'<div style="width:6em"><div style="{bar}"></div></div>'


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells under column names, with a title. Columns in which every cell is empty are left out.

    >>> Table(("name", "size", "note"), (("a", 1, ""), ("bcd", 20, "")), "Two things")
    Two things
      name  size
      a     1
      bcd   20
    """

    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    title: str

    def __repr__(self) -> str:
        lines = [self.columns, *self.rows] if self.rows else []
        columns = [[str(row[i]) for row in lines] for i in self._used()]
        padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
        return "\n".join([self.title, *("  " + "  ".join(line).rstrip() for line in zip(*padded))])

    def _repr_html_(self) -> str:
        """Without colours of its own, so that it is right on light and on dark."""
        used = self._used()
        head = _line("th", [self.columns[i] for i in used])
        body = "".join(_line("td", [row[i] for i in used]) for row in self.rows)
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>" if self.rows else ""
        return f"<div>{escape(self.title)}</div>{table}"

    def _used(self) -> list[int]:
        return [i for i in range(len(self.columns)) if any(str(row[i]) for row in self.rows)]


def _line(tag: str, cells: list) -> str:
    style = f'<{tag} style="text-align:left;vertical-align:middle">'
    return "<tr>" + "".join(f"{style}{_html(cell)}</{tag}>" for cell in cells) + "</tr>"


def _html(cell) -> str:
    return cell._repr_html_() if isinstance(cell, Bar) else escape(str(cell))
