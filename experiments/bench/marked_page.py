"""Tables between two markers of a Markdown file that people may write around."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.run_directory import replace_file
from robots.errors import StoreError


def replace_tables(page: Path, new_page: str, start: str, end: str, make: Callable[[], str]) -> None:
    """Put what `make` returns between the markers `start` and `end` of `page`; a missing page begins as `new_page`.

    Raises StoreError where the page has no markers or cannot be read or written.
    """
    try:
        text = page.read_text(encoding="utf-8") if page.exists() else new_page
    except (OSError, ValueError) as error:
        raise StoreError(f"{page}: cannot be read ({error})") from error
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        raise StoreError(f"{page}: expected the lines {start} and {end} around the tables, they are missing; put them back, or move the "
                         "page away and a new one is made")
    replace_file(page, f"{before}{start}\n{make()}\n{end}{after}".encode())
