"""A table or a line, with warnings in words under it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import fill


def warned(text: str, warnings: Sequence[str]) -> str:
    """
    >>> print(warned("k-hat 0.9", ["The tail is heavy."]))
    k-hat 0.9
    WARNING: The tail is heavy.
    """
    return "\n".join([text, *(fill(f"WARNING: {one}", 100) for one in warnings)])


def warned_html(html: str, warnings: Sequence[str]) -> str:
    """
    >>> warned_html("<table></table>", ["1 < 2"])
    '<table></table><div>Warnings</div><ul><li>1 &lt; 2</li></ul>'
    """
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return html + (f"<div>Warnings</div><ul>{items}</ul>" if items else "")
