"""The dump of a package's signatures, and what it says of each name."""

from __future__ import annotations

from pathlib import Path

import pytest
from loom_kit.signatures import dump, offered

TOP = '''"""A package."""
from __future__ import annotations
from loom_toy_signatures.inner import Pet as Pet, feed as feed, hidden
LIMIT = 3
"""How many. More
is too much.

Further."""
'''
INNER = '''"""Inside."""
from __future__ import annotations
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal
@dataclass(frozen=True)
class Pet:
    """An animal, e.g. a cat. name: its name."""
    name: str
    kind: Literal["cat", "dog"] = "cat"
    food: list[str] = field(default_factory=list)
    _age: int = 0
    @property
    def old(self) -> bool:
        return self._age > 9
    def call(self, *, loudly: bool = False) -> str | None:
        return None
@lru_cache
def feed(pet: Pet, kind: Literal["cat", "dog"] = "cat") -> None: ...
def hidden() -> None: ...
'''


def test_a_dump_has_what_is_offered_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "loom_toy_signatures"
    package.mkdir()
    (package / "__init__.py").write_text(TOP, "utf-8")
    (package / "inner.py").write_text(INNER, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert list(dump(["loom_toy_signatures"])) == [
        "# loom_toy_signatures",
        "",
        "LIMIT = 3",
        "class Pet",
        "    name: str",
        "    kind: Literal['cat', 'dog'] = 'cat'",
        "    food: list[str] = list()",
        "    def call(self, *, loudly: bool = False) -> str | None",
        "    property old -> bool",
        "def feed(pet: Pet, kind: Literal['cat', 'dog'] = 'cat') -> None",
        "",
    ]
    said = {item.name: (item.home.rpartition(".")[2], item.summary) for item in offered("loom_toy_signatures")}
    assert said == {
        "LIMIT": ("loom_toy_signatures", "How many."),
        "Pet": ("inner", "An animal, e.g. a cat."),
        "feed": ("inner", ""),
    }
