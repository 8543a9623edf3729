"""What the documentation site needs besides `mkdocs.yml`: pages for what stands outside of `docs/`, and for notebooks.

The pages of `docs/` link to files such as `../examples/act.py` and `../results`, which is right where the repository is
browsed. In the site such a link leads to the same path under `repository/`: to a page that shows the file or lists the
directory, or to a copy of an image or a table. MkDocs calls the functions whose names begin with `on_`.
"""

import base64
import json
import os
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
DOCS = ROOT / "docs"
SHELF = "repository"
"""The folder of the site that holds what is shown from outside of `docs/`."""
ALWAYS = (ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md")
"""Shown whether or not a page links to them."""
IMAGES = {".png", ".svg", ".gif", ".jpg"}
COPIED = IMAGES | {".csv", ".pdf"}
"""Files that are copied as they are; others are shown on a page."""
LANGUAGES = {".py": "python", ".toml": "toml", ".sh": "bash", ".cpp": "cpp", ".json": "json"}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""What a terminal takes for a colour."""
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")

_sources: dict[str, Path] = {}
"""Page of the site → the file or directory of the repository that it shows, for pages that MkDocs does not find."""


def place(path: Path) -> str:
    """Where the site has a file or directory of the repository, as a path relative to `docs/`."""
    path = Path(os.path.normpath(path))
    if path.is_relative_to(DOCS) and path != DOCS:
        inside = path.relative_to(DOCS).as_posix()
        return inside.removesuffix(".ipynb") + ".md" if path.suffix == ".ipynb" else inside
    outside = posixpath.join(SHELF, path.relative_to(ROOT).as_posix())
    if path.is_dir():
        return posixpath.join(outside, "index.md")
    return outside if path.suffix in COPIED | {".md"} else outside + ".md"


def source(page: str) -> Path:
    """The file or directory that a page of the site shows: the inverse of `place`."""
    if not page.startswith(SHELF + "/"):
        path = DOCS / page
        return path if path.exists() else path.with_suffix(".ipynb")
    path = ROOT / page.removeprefix(SHELF + "/")
    if path.exists():
        return path
    return path.parent if path.name == "index.md" else path.with_suffix("")


def targets(markdown: str, path: Path) -> list[Path]:
    """The files and directories of the repository to which the text of `path` links."""
    base = path if path.is_dir() else path.parent
    found = [Path(os.path.normpath(base / match[1])) for match in LINK.finditer(markdown)]
    return [each for each in found if each.is_relative_to(ROOT) and each.exists()]


def with_links_of_the_site(markdown: str, path: Path) -> str:
    """The text of `path` with its links to the repository as links between places of the site."""
    base, page = path if path.is_dir() else path.parent, place(path)

    def moved(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(base / match[1]))
        if not target.is_relative_to(ROOT) or not target.exists():
            return match[0]
        return f"]({posixpath.relpath(place(target), posixpath.dirname(page) or '.')}{match[2] or ''})"

    return LINK.sub(moved, markdown)


def text(path: Path) -> str:
    """The markdown of the page that shows a file or directory."""
    if path.is_dir():
        return _listing(path)
    if path.suffix == ".md":
        return path.read_text()
    if path.suffix == ".ipynb":
        return "\n\n".join(_cell(cell, f"{path.stem}_{n}") for n, cell in enumerate(_cells(path)))
    return f"# {path.relative_to(ROOT)}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text().strip()}\n````\n"


def _listing(folder: Path) -> str:
    inside = [each for each in sorted(folder.iterdir()) if each.name[0] not in "_."]
    names = [f"- [{each.name}{'/' * each.is_dir()}]({each.name})" for each in inside]
    images = [f"## {each.name}\n\n![{each.stem}]({each.name})" for each in inside if each.suffix in IMAGES]
    return "\n\n".join([f"# {folder.relative_to(ROOT)}/", "\n".join(names), *images])


def _cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text())["cells"]


def _cell(cell: dict[str, Any], name: str) -> str:
    """A cell of a notebook as markdown; its images are files called `name`."""
    code = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return code
    parts = [f"```python\n{code}\n```"]
    for number, output in enumerate(cell["outputs"]):
        data = output.get("data", {})
        said = "".join(output.get("text", data.get("text/plain", "")))
        if "image/png" in data:
            parts.append(f"![]({name}_{number}.png)")
        elif said.strip() and output.get("name") != "stderr":
            parts.append(f"```text\n{COLOUR.sub('', said).rstrip()}\n```")
    return "\n\n".join(parts)


def on_files(files: Any, config: Any) -> Any:
    """Adds the notebooks of `docs/`, and whatever its pages link to outside of it, and what that links to in turn."""
    from mkdocs.structure.files import File

    _sources.clear()
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    notebooks = [DOCS / file.src_uri for file in files if file.src_uri.endswith(".ipynb")]
    waiting, seen = [*pages, *notebooks, *ALWAYS], {*pages, *ALWAYS}
    while waiting:
        path = waiting.pop()
        if path.suffix in COPIED:
            files.append(File.generated(config, place(path), abs_src_path=str(path)))
            continue
        markdown = text(path)
        if path not in pages:
            _sources[place(path)] = path
            files.append(File.generated(config, place(path), content=markdown))
        if path.suffix == ".ipynb":
            for name, image in _images(path):
                files.append(File.generated(config, name, content=image))
        if path.is_dir() or path.suffix in (".md", ".ipynb"):
            new = {each for each in targets(markdown, path) if not each.is_relative_to(DOCS)} - seen
            seen |= new
            waiting += sorted(new)
    return files


def _images(notebook: Path) -> list[tuple[str, bytes]]:
    """The images among a notebook's outputs, with the names by which `_cell` shows them."""
    return [
        (f"{notebook.stem}_{n}_{number}.png", base64.b64decode("".join(output["data"]["image/png"])))
        for n, cell in enumerate(_cells(notebook))
        for number, output in enumerate(cell.get("outputs", []))
        if "image/png" in output.get("data", {})
    ]


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Leads a page's links to where the site has what they name."""
    path = _sources.get(page.file.src_uri, DOCS / page.file.src_uri)
    if path.is_dir() or path.suffix in (".md", ".ipynb"):
        return with_links_of_the_site(markdown, path)
    return markdown
