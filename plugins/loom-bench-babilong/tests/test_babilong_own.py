"""BABILong's stories and their mixing: loom's small world, bAbI's file format, lengths, evidence, scores and table."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_bench_babilong.benchmark import METRIC, WHOLE, Babilong, level_name
from loom_bench_babilong.mixing import Noise, mixed, own_sentences, sentences_of
from loom_bench_babilong.plugin import EVALUATED, BabilongOptions
from loom_bench_babilong.stories import MAKERS, PEOPLE, PLACES, THINGS, Story, made, read_stories
from loom_kit.tokenizers import GRAINS, tokenizer_of

from loom_core.api import DataDir, DataError, Graded, Metric, Prompt, Sample, Scored, Tokenizer, UsageError, installed
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import render
from loom_core.doubles.server import oracle_text

NOWHERE = DataDir(mirror=None, cache=Path("/nonexistent"), offline=True)


def samples(task: str, lengths: tuple[int, ...], tokenizer: Tokenizer | None, **options: Any) -> list[Sample]:
    """Samples of loom's variant."""
    bench = Babilong(BabilongOptions(**{"samples": 3, **options}))
    (found,) = [row for row in bench.tasks(lengths) if row.name == f"loom_{task}"]
    return list(bench.samples(found, NOWHERE, tokenizer, lengths))


def metric(name: str = METRIC) -> Metric:
    """An installed metric."""
    found: Metric = installed().load(installed().metrics.get(name))()
    return found


def answer_by_rule(story: Story, task: str) -> str:
    """What a reader of the facts answers, worked out anew from their words."""
    at: dict[str, str] = {}
    holder: dict[str, str] = {}
    history: dict[str, list[str]] = {}
    for fact in story.facts:
        words = fact.rstrip(".").split()
        if words[-1] in PLACES and words[0] in PEOPLE:
            at[words[0]] = words[-1]
            for thing in (thing for thing, owner in holder.items() if owner == words[0]):
                history[thing].append(words[-1])
        elif words[-1] in THINGS:
            holder[words[-1]] = words[0]
            history.setdefault(words[-1], []).append(at[words[0]])
    asked = story.question.rstrip("?").split()
    if task == "qa1":
        return at[asked[-1]]
    if task == "qa2":
        return history[asked[-1]][-1]
    places = history[asked[3]]
    assert places.count(asked[-1]) == 1
    return places[places.index(asked[-1]) - 1]


@pytest.mark.parametrize("task", ["qa1", "qa2", "qa3"])
@given(seed=st.integers(0, 10**6))
def test_answers_follow_from_the_facts(task: str, seed: int) -> None:
    story = made(task, random.Random(seed))
    assert story.answer == answer_by_rule(story, task)
    assert story.answer in " ".join(story.facts[i] for i in story.support) and story.answer in story.labels
    assert list(story.support) == sorted(set(story.support))


@given(seed=st.integers(0, 10**6))
def test_relations_have_one_answer(seed: int) -> None:
    two = made("qa4", random.Random(seed))
    (direction,) = {fact.split(" is ")[1].split(" the ")[0] for fact in two.facts}
    pairs = [(fact.split()[1], fact.rstrip(".").split()[-1]) for fact in two.facts]
    middle = next(place for place in PLACES if place in two.question)
    if two.question.startswith(f"What is {direction}"):
        assert [first for first, second in pairs if second == middle] == [two.answer]
    else:
        assert [second for first, second in pairs if first == middle] == [two.answer]
    three = made("qa5", random.Random(seed))
    assert three.answer in three.facts[three.support[0]] and three.answer not in three.question
    assert all(word in three.facts[three.support[0]] for word in (*PEOPLE, *THINGS) if word in three.question)


@pytest.mark.parametrize("name", GRAINS)
@pytest.mark.parametrize("task", EVALUATED)
def test_lengths_under_three_tokenizers(task: str, name: str) -> None:
    tokenizer = tokenizer_of(name)
    if tokenizer is None:
        pytest.skip("the embedded model is not installed")
    for sample in samples(task, (6000, 12288), tokenizer):
        wanted = int(sample.id.split("-")[1])
        assert 0.98 * wanted <= len(render(sample.prompt, tokenizer, chat="template").token_ids or ()) <= wanted
        assert sample.level == {6000: "6000", 12288: "12k"}[wanted]


@pytest.mark.parametrize("task", EVALUATED)
def test_evidence_oracle_and_null(task: str) -> None:
    for sample in samples(task, (0, 4096), ToyTokenizer(), samples=20):
        held = [sample.prompt.segments[one.segment].text[one.start : one.end] for one in sample.evidence]
        assert held and all(fact.endswith(".") and sample.prompt.context.count(fact) >= 1 for fact in held)
        assert any(sample.references[0] in fact for fact in held)
        for name in (METRIC, WHOLE):
            assert metric(name).score(oracle_text(sample), sample).value == 1.0
            assert metric(name).score("", sample).value == 0.0


def test_the_whole_words_find_no_one_in_none() -> None:
    sample = Sample(
        id="s",
        task="babi_qa7",
        prompt=Prompt(segments=()),
        references=("none",),
        meta={"task": "qa7", "question": "How many objects is Mary carrying?"},
    )
    assert [metric(name).score("none", sample).value for name in (METRIC, WHOLE)] == [0.0, 1.0]


def test_samples_do_not_depend_on_their_neighbours() -> None:
    alone = {one.id: one for one in samples("qa2", (3000,), ToyTokenizer())}
    among = {one.id: one for one in samples("qa2", (5000, 3000), ToyTokenizer(), samples=5)}
    assert alone.items() <= among.items()
    assert list(alone.values()) != samples("qa2", (3000,), ToyTokenizer(), seed=1)


def test_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib\nfrom loom_bench_babilong.benchmark import Babilong\n"
        "from loom_bench_babilong.plugin import BabilongOptions\n"
        "from loom_core.contract.keys import canonical\nfrom loom_core.doubles.server import ToyTokenizer\n"
        "bench = Babilong(BabilongOptions(samples=2, seed=4))\n"
        "rows = [s for t in bench.tasks(()) for s in bench.samples(t, None, ToyTokenizer(), (0, 3000))]\n"
        "print(hashlib.sha256(canonical(rows).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_a_length_too_short_names_the_least() -> None:
    with pytest.raises(UsageError, match="too short for the facts"):
        samples("qa1", (100,), ToyTokenizer())


def test_without_a_tokenizer_lengths_are_estimates() -> None:
    for sample in samples("qa1", (1000,), None):
        assert sample.meta["length_estimated"] and 0.95 * 4000 <= len(sample.prompt.text) <= 4000


# --- stories and mixing ----------------------------------------------------------------------------------------------

BABI = """1 Ann went home.
2 Where is Ann? \thome\t1
3 Ben left.
4 Where is Ben?\tgone,away\t1 3
1 New story.
2 What is new?|story|1
"""


def test_the_file_format() -> None:
    first, second, third = read_stories(BABI, where="here")
    assert first == Story(("Ann went home.",), "Where is Ann? ", "home", (0,))
    assert second == Story(("Ann went home.", "Ben left."), "Where is Ben?", "gone,away", (0, 1))
    assert third == Story(("New story.",), "What is new?", "story", (0,))


@pytest.mark.parametrize(
    ("text", "line"), [("x Ann went home.\n", 1), ("1 Ann.\n2 Who?\tAnn\t7\n", 2), ("1 Ann.\n\n3\n", 3)]
)
def test_malformed_lines_are_named(text: str, line: int) -> None:
    with pytest.raises(DataError) as caught:
        list(read_stories(text, where="qa1.txt"))
    assert caught.value.where == f"qa1.txt, line {line}"


@given(
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=6),
    st.lists(st.text(alphabet="yz", min_size=1, max_size=4), max_size=8),
    st.randoms(use_true_random=False),
)
def test_mixing_keeps_both_orders(facts: list[str], noise: list[str], draw: Any) -> None:
    places = sorted(draw.random() for _ in facts)
    found = mixed(Story(tuple(facts), "", "", ()), noise, places)
    words = found.context.split(" ")
    assert [word for word in words if word[0] in "ab"] == facts
    assert [word for word in words if word[0] in "yz"] == noise
    assert [found.context[start:end] for start, end in found.spans] == facts


def test_noise_is_of_the_text(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("One is\nhere. Two is there!  Is three? No end", "utf-8")
    assert sentences_of(book) == ("One is here.", "Two is there!", "Is three?")
    taken = Noise(sentences_of(book), random.Random(3), shuffled=False).first(6)
    order = sentences_of(book) * 3
    assert any(tuple(taken) == order[i : i + 6] for i in range(3))
    with pytest.raises(DataError, match="cannot be read"):
        sentences_of(tmp_path / "none.txt")
    book.write_text("no sentence", "utf-8")
    with pytest.raises(DataError, match="no sentence"):
        sentences_of(book)


def test_the_filler_holds_no_fact() -> None:
    rows = own_sentences()
    words = {word.strip(".,;:'").lower() for row in rows for word in row.split()}
    assert len(set(rows)) == len(rows) >= 30 and not any(c.isdigit() for row in rows for c in row)
    assert not words & {name.lower() for name in (*PEOPLE, *PLACES, *THINGS)} - {"violin"}
    assert set(MAKERS) == set(EVALUATED)


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    rows = []
    for task, level, values in (("qa1", "0k", (1.0, 1.0)), ("qa2", "0k", (0.0, 1.0)), ("loom_qa1", "4k", (1.0, None))):
        for i, value in enumerate(values):
            sample = Sample(id=f"{task}{level}{i}", task=task, prompt=Prompt(segments=()), references=(), level=level)
            scored = {METRIC: Scored(value=value), WHOLE: Scored(value=0.0)}
            rows.append(Graded(task=task, sample=sample, repeat=0, scored=scored))
    lines = {line.name: line for line in Babilong(BabilongOptions()).aggregate(rows)}
    assert {name: line.value for name, line in lines.items()} == {
        "avg 0k": None,
        "qa1 0k": 100.0,
        "qa2 0k": 50.0,
        "loom_qa1 4k": 100.0,
        "mean 0k": 75.0,
        "loom_mean 4k": 100.0,
    }
    assert lines["loom_qa1 4k"].missing == 1 and lines["mean 0k"].note == "mean of 2 tasks"


def test_level_names() -> None:
    assert [level_name(n) for n in (0, 1024, 131072, 1048576, 10485760, 1000)] == [
        "0k",
        "1k",
        "128k",
        "1M",
        "10M",
        "1000",
    ]
