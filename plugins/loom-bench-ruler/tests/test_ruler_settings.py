"""What the official variant needs and refuses: word lists, the authors' files, settings it does not know."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from loom_bench_ruler import words
from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.plugin import RulerOptions
from loom_bench_ruler.settings import read_settings

from loom_core.api import DataDir, DataError, Unavailable

MIRROR = Path(os.environ.get("LOOM_SHARED", Path(__file__).resolve().parents[4] / "shared")) / "data"


def test_the_wonderwords_lists() -> None:
    pytest.importorskip("wonderwords")
    words.wonderwords_book.cache_clear()
    book = words.wonderwords_book()
    assert book.source.startswith("wonderwords ")
    assert len(book.adjectives) > 900
    assert len(book.nouns) > 6000
    assert list(book.single) == sorted(set(book.single))


@pytest.mark.skipif(not (MIRROR / "ruler").is_dir(), reason=f"no upstream files at {MIRROR}")
def test_unavailable_here_where_the_templates_are_missing(tmp_path: Path) -> None:
    if (MIRROR / "ruler/scripts/data/synthetic/constants.py").exists():
        pytest.skip("the mirror has the authors' templates")
    data = DataDir(mirror=MIRROR, cache=tmp_path, offline=True).for_benchmark("ruler")
    bench = Ruler(RulerOptions(variant="official"))
    for task in bench.tasks(()):
        with pytest.raises(Unavailable, match=r"constants\.py"):
            next(bench.samples(task, data, None, ()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("niah_single_1:\n  task: poetry\n", "poetry"),
        ("niah_single_1:\n  task: niah\n  args:\n    type_haystack: hay\n", "num_needle_q"),
        ("- a list\n", "line 1"),
        ("cwe:\n  task: common_words_extraction\n  args:\n    freq_cw: many\n", "many"),
        ("vt:\n  task: variable_tracking\n  args:\n    type_haystack: essay\n", "essay"),
    ],
)
def test_settings_this_plugin_does_not_know(text: str, why: str) -> None:
    with pytest.raises(DataError, match=f"(?s)settings of RULER.*here.*{why}"):
        read_settings(text, "here")
