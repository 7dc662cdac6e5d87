"""Makes the site from the same Markdown that is read in the repository: a hook of mkdocs, named in mkdocs.yml.

Pages outside docs/ (README, CONTRIBUTING and the like) become pages of the site, links between the two are turned to
where the pages then lie, and a link to a file that is no page becomes its name. Knows no page by its content.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.name for path in ROOT.glob("*.md")} | {"changelog/README.md"}
"""Pages outside docs/, by their path in the repository; a nested README is named after its folder."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie outside docs/."""
    generated = importlib.import_module("mkdocs.structure.files").File.generated
    for page in sorted(PAGES):
        text = (ROOT / page).read_text("utf-8")
        files.append(generated(config, _of_site(page), content=turned(text, page)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn the links of a page of docs/; the others were turned when they were added."""
    return turned(markdown, f"docs/{page.file.src_uri}") if page.file.generated_by is None else markdown


def turned(markdown: str, page: str) -> str:
    """The text with links as they are on the site. page: its path in the repository."""
    here = posixpath.dirname(_of_site(page))

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        if path in PAGES or (path.startswith("docs/") and path.endswith(".md")):
            return f"[{text}]({posixpath.relpath(_of_site(path), here or '.')}{anchor})"
        return text if "`" in text else f"{text} (`{path}`)"

    parts = re.split(r"(?ms)(^```.*?^```)", markdown)
    return "".join(part if i % 2 else LINK.sub(link, part) for i, part in enumerate(parts))


def _of_site(page: str) -> str:
    """Where a page of the repository lies on the site; README.md would stand in the way of the front page."""
    page = "start.md" if page == "README.md" else page
    return page.removeprefix("docs/") if page.startswith("docs/") else page.replace("/README.md", "-fragments.md")
