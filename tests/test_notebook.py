"""The notebook runs as it stands, and its agent remembers what the page says that it does."""

from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parent.parent / "docs" / "first_steps.ipynb"


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [line for output in outputs for line in output.get("text", "").splitlines()]


def test_the_notebook_runs_and_finds_what_the_page_shows(tmp_path: Path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = printed(notebook)[-1]
    assert "3 steps back" in shown
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert printed(notebook)[-1] == shown
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
