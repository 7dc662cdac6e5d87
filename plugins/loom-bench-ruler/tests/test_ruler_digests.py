"""Recorded prompts of the authors' generators: `official` makes the same bytes for the same seed, tokenizer and length.

Needs the recorded digests and the authors' files: a checkout as `ruler` beside the essays in the data folder, or where
LOOM_RULER points.
"""

from __future__ import annotations

import hashlib
import json
import os
from itertools import islice, pairwise
from pathlib import Path

import pytest
from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.keywords import Keywords
from loom_bench_ruler.plugin import RulerOptions
from loom_bench_ruler.sentences import haystack

from loom_core.api import DataDir
from loom_core.api.doubles import ToyTokenizer

ROOT = Path(__file__).resolve().parents[3]
SHARED = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared"))
DIGESTS, TINY = SHARED / "prompt-digests" / "ruler.json", SHARED / "models" / "loom-tiny"
MIRROR = Path(os.environ.get("LOOM_RULER", SHARED / "data"))
NEEDED = [DIGESTS, TINY / "tokenizer.json", MIRROR / "ruler" / "scripts" / "data" / "synthetic" / "niah.py"]
absent = [str(path) for path in NEEDED if not path.is_file()]


class Tiny(ToyTokenizer):
    """The embedded model's tokenizer, without a chat template or special tokens."""

    def __init__(self) -> None:
        self._tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(TINY / "tokenizer.json"))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.mark.skipif(bool(absent), reason=f"not at hand: {', '.join(absent)}")
def test_recorded_prompts(tmp_path: Path) -> None:
    rows = [row for row in json.loads(DIGESTS.read_text("utf-8")) if "loom-tiny" in row["tokenizer"]]
    data = DataDir(mirror=MIRROR, cache=tmp_path, offline=True)
    tokenizer = Tiny()
    for row in (row for row in rows if not row["settings"]["qa"]):
        settings = row["settings"]
        bench, length = (
            Ruler(RulerOptions(variant="official", seed=settings["random_seed"])),
            settings["max_seq_length"],
        )
        task = next(task for task in bench.tasks((length,)) if task.name == row["task"])
        made = bench.samples(task, data, tokenizer, (length,))
        sample = next(islice(made, settings["index"], None))
        assert hashlib.sha256(sample.prompt.text.encode()).hexdigest() == row["sha256"], row["task"]
        assert list(sample.references) == row["references"]


def test_keywords_are_the_sorted_set() -> None:
    adjectives, nouns = ["well", "a", "well-known", "ad hoc", "a", "wella", "a-b"], ["x", "known-x", "b-x", "y z", "x"]
    every = sorted({f"{adjective}-{noun}" for adjective in adjectives for noun in nouns})
    keywords = Keywords(adjectives, nouns)
    assert list(keywords) == every
    assert (len(keywords), keywords[-1], keywords[2:4]) == (len(every), every[-1], every[2:4])
    with pytest.raises(IndexError):
        keywords[len(every)]


def test_a_haystack_is_the_authors_text_but_for_spaces_inside_words() -> None:
    text = 'It ends here.[2] "Really?" He said\nso. No (see it.) Next.'
    hay = haystack(text)
    assert not hay.known
    assert " ".join(hay.take(11)) == 'It ends here. [2] "Really?" He said so. No (see it.) Next.'
    n = hay.n_sentences(11)
    starts = [hay.start(i, 11) for i in range(n + 1)]
    cut = [" ".join(hay.take(11)[a:b]) for a, b in pairwise(starts)]
    assert cut == ["It ends here.", '[2] "Really?"', "He said so.", "No (see it.)", "Next."]
    assert hay.n_sentences(22) == 2 * n
    assert hay.take(13)[-2:] == ["It", "ends"]
