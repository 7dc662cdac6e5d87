"""Gathers the fragments of changelog/ into CHANGELOG.md, below the heading of what is not released yet.

    python release/changelog.py [--check] [--release VERSION DATE]

Each fragment becomes an item of the list, in the order of the files' names, and its file goes. --check only says what
would be gathered and whether it is well made. --release gives the heading its version and date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 140
OPEN = re.compile(r"(?m)^## (\S+), not released$")


def fragments(folder: Path) -> dict[Path, str]:
    """The texts of the fragments by their files. Raises ValueError with the file that is not one."""
    found = {}
    for path in sorted(folder.glob("*")):
        if path.name == "README.md":
            continue
        text = path.read_text("utf-8").strip()
        if path.suffix != ".md" or not text or re.search(r"(?m)^(#|[-*] )", text) or not text.endswith("."):
            raise ValueError(f"{path.name}: a fragment is a .md file of plain sentences, without heading or list marks")
        if long := next((line for line in text.splitlines() if len(line) > WIDTH), None):
            raise ValueError(f"{path.name}: a line has {len(long)} characters, more than {WIDTH}")
        found[path] = text
    return found


def gathered(changelog: str, texts: Sequence[str], release: Sequence[str] = ()) -> str:
    """The changelog with the fragments as items of its open section, newest first. Raises ValueError without one."""
    heading = OPEN.search(changelog)
    if heading is None:
        raise ValueError("CHANGELOG.md has no heading `## VERSION, not released`: write one first")
    start = changelog.find("\n- ", heading.end())
    end = changelog.find("\n## ", heading.end())
    at = start + 1 if start >= 0 and (end < 0 or start < end) else len(changelog) if end < 0 else end + 1
    items = "".join(f"- {text.replace(chr(10), chr(10) + '  ')}\n" for text in texts)
    made = changelog[:at] + items + changelog[at:]
    return OPEN.sub(f"## {release[0]}, {release[1]}", made, count=1) if release else made


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Gather, or only check. Exit code 1 where a fragment or the changelog is not well made."""
    parser = argparse.ArgumentParser(description="Gather the changelog's fragments.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--release", nargs=2, metavar=("VERSION", "DATE"), default=(), help="close the open section")
    given = parser.parse_args(arguments)
    target = root / "CHANGELOG.md"
    try:
        found = fragments(root / "changelog")
        made = gathered(target.read_text("utf-8"), list(found.values()), given.release)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if not given.check:
        target.write_text(made, "utf-8")
        for path in found:
            path.unlink()
    print(f"{len(found)} fragments {'would be ' if given.check else ''}gathered")
    return 0


if __name__ == "__main__":
    sys.exit(main())
