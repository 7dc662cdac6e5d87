"""How the templates of a kind of plugin become a distribution. Knows names and files; imports no plugin.

`templates/KIND/kind.toml` says what a kind is called and needs. The other files of `templates/KIND`, and those of
`templates/shared` that a kind does not replace, are the distribution: `package` in a path stands for its package, and
`$word` in a text (string.Template) for one of `words`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from string import Template
from typing import Any

from loom_core.contract.errors import UsageError

TEMPLATES = Path(__file__).with_name("templates")
SHARED = "shared"
SUFFIX = ".tmpl"


def write(kind: str, name: str, out: Path | None) -> tuple[Path, str]:
    """Write a distribution of that kind; returns its folder and its name.

    Raises UsageError for names that cannot be one and for folders that exist.
    """
    if kind == "metric":
        name = name.replace("_", "-")  # metrics are spelt with _, distributions with -
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        why = "lower-case letters and digits, words joined by -, e.g. my-method"
        raise UsageError(f"{name!r} cannot be a plugin's name", where="loom new", why=why)
    filled = words(kind, name)
    folder = out or Path(filled["distribution"])
    if folder.exists():
        raise UsageError("this folder exists already", where=str(folder), hint="give another with --out")
    for place, template in files(kind).items():
        path = folder / place.replace("package", filled["package"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(template.read_text("utf-8")).substitute(filled), "utf-8")
    return folder, filled["distribution"]


def files(kind: str) -> dict[str, Path]:
    """The templates of a kind by the place of what is made of them, relative to the distribution's folder."""
    found: dict[str, Path] = {}
    for folder in (TEMPLATES / SHARED, TEMPLATES / kind):
        for path in sorted(folder.rglob(f"*{SUFFIX}")):
            found[path.relative_to(folder).as_posix().removesuffix(SUFFIX)] = path
    return found


def words(kind: str, name: str) -> dict[str, str]:
    """What stands for each word of the templates. name: words joined by -."""
    told: dict[str, Any] = tomllib.loads((TEMPLATES / kind / "kind.toml").read_text("utf-8"))
    distribution = f"loom-{told['prefix']}-{name}"
    module = told.get("module", "plugin")
    named = {
        "name": name if kind == "command" else name.replace("-", "_"),
        "distribution": distribution,
        "package": distribution.replace("-", "_"),
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "group": told.get("group", "loom"),
        "module": module,
        "dependencies": _listed("loom-core>=0.1", *told["dependencies"]),
        "test": _listed("loom-kit>=0.1", *told.get("test", ()), "pytest>=8"),
    }
    texts = ("title", "does", "command", "options", "layout", "evidence")
    return named | {word: Template(told[word]).substitute(named).strip() for word in texts}


def _listed(*rows: str) -> str:
    """Requirements as TOML lists them."""
    return ", ".join(f'"{row}"' for row in rows)
