"""A page in Chromium, for tests that click; they are skipped where Chromium or playwright is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def opened(address: str, width: int) -> Iterator[Any]:
    """The page in a window of this width. Fails at the end if the page had an error of its own."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("needs Chromium")
    problems: list[str] = []
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        yield page
        browser.close()
    assert not problems, problems
