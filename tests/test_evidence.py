"""Evidence through rewritings and cuts: against a model of single characters; records, attribution, and reports."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_report.evidence_losses import cause, evidence
from loom_report.ledger import Answer, Call, EvidenceLeft, Question, RewritingCost

from loom_core.api import Evidence, Kept, Prompt, Sample, segment
from loom_core.contract.evidence import Trail, kept_ends
from loom_core.prompting.rewriting import evidence_left, rewrite

CONTEXT = "".join(chr(0x4E00 + i) for i in range(60))
"""Sixty different characters: where each of them went can be read off a text."""


def keep(text: str, draw: random.Random, segment_index: int) -> tuple[str, list[Kept]]:
    """A rewriting that keeps random spans and puts a bar between them."""
    made, kept, at = "", [], 0
    while at < len(text):
        start = min(len(text), at + draw.randrange(4))
        end = min(len(text), start + 1 + draw.randrange(9))
        if start < end:
            made += "|" if made else ""
            kept.append(Kept(segment=segment_index, start=start, end=end, at=len(made)))
            made += text[start:end]
        at = end + draw.randrange(3)
    return made, kept


@given(st.randoms(use_true_random=False), st.integers(0, 59), st.integers(1, 20), st.integers(1, 3))
def test_spans_are_followed_as_single_characters_would_be(
    draw: random.Random, start: int, length: int, n_steps: int
) -> None:
    end = min(60, start + length)
    trail, text = Trail([Evidence(segment=1, start=start, end=end)]), CONTEXT
    for _ in range(n_steps):
        text, kept = keep(text, draw, 1)
        trail.follow(kept)
    wanted = CONTEXT[start:end]
    assert trail.share == pytest.approx(sum(char in text for char in wanted) / len(wanted))
    assert trail.whole == (wanted in text)


def prompt(context: str) -> Prompt:
    """Instruction, context, question."""
    return Prompt(segments=(segment("instruction", "Read."), segment("context", context), segment("question", "?")))


@given(st.text("ab", max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_a_cut_is_read_from_the_texts_alone(text: str, start: int, length: int) -> None:
    after = text[:start] + text[start + length :]
    kept = kept_ends(prompt(text), prompt(after))
    assert kept is not None
    rows = [k for k in kept if k.segment == 1]
    assert "".join(text[k.start : k.end] for k in rows) == after
    assert all(after[k.at : k.at + k.end - k.start] == text[k.start : k.end] for k in rows)


def test_an_edit_that_is_no_cut_tells_nothing() -> None:
    assert kept_ends(prompt("abcdef"), prompt("abXdef")) is None
    assert kept_ends(prompt("abc"), prompt("abcd")) is None


class Half:
    """A prompt augmentation that keeps the first half, and returns a plain prompt."""

    def open(self, tokenizer: Any) -> Any:
        """Nothing to open."""

    def rewrite(self, given: Prompt, tokenizer: Any, *, chat: Any = "template") -> Prompt:
        """The first half of the context."""
        return prompt(given.context[: len(given.context) // 2])


def test_what_reaches_the_model_is_recorded() -> None:
    source = prompt(CONTEXT)
    places = (Evidence(segment=1, start=0, end=4), Evidence(segment=1, start=20, end=30))
    sample = Sample(id="s", task="t", prompt=source, references=("x",), evidence=places)
    made = rewrite([("half", Half())], source, None, "completion")
    assert evidence_left(sample, source, made.kept, ()) == {"n": 2, "rewritten": 2, "final": 2, "share": 1.0}
    cut = (kept_ends(made.prompt, prompt(CONTEXT[:25])),)
    left = evidence_left(sample, source, made.kept, cut)
    assert left == {"n": 2, "rewritten": 2, "final": 1, "share": round(9 / 14, 6)}
    quarter = rewrite([("half", Half()), ("half", Half())], source, None, "completion")
    found = evidence_left(sample, source, quarter.kept, ())
    assert found is not None and (found["rewritten"], found["final"]) == (1, 1)
    assert evidence_left(sample, prompt("a summary"), made.kept, ()) is None, "another context than the sample's"
    assert evidence_left(sample, source, (None,), ()) is None, "an augmentation that wrote text anew"
    assert made.facts["spans"] == [[1, 0, 30]] and made.cost["calls"] == 0 and made.cost["seconds"] >= 0


def answer(number: int, left: tuple[int, int, int] | None) -> Answer:
    """An answer whose evidence was (n, whole after rewriting, whole after truncation)."""
    question = Question(number, "t", str(number), "all", 10, None, None)
    seen = EvidenceLeft(*left, share=left[2] / left[0]) if left else None
    took = RewritingCost(0.5, 0.25, 2, 100, 0.01, 0.5)
    call = Call(1, False, 1.0, None, None, 1, 1, 0, 0, None, None, None, None, None, False, None)
    return Answer(str(number), question, 0, "answered", (call._replace(evidence=seen, rewriting=took),))


def test_losses_are_told_apart_and_add_up() -> None:
    rows = [
        (answer(0, (1, 1, 1)), 1.0),
        (answer(1, (1, 1, 1)), 0.0),
        (answer(2, (1, 0, 0)), 0.0),
        (answer(3, (2, 1, 1)), 0.5),
        (answer(4, (1, 1, 0)), 0.0),
        (answer(5, (1, 0, 0)), 1.0),
        (answer(6, None), 0.0),
    ]
    found = evidence([row for row, _ in rows], rows, 1.0)
    assert found is not None
    assert found["n"] == 6 and found["n_whole"] == 2
    assert found["recall"] == pytest.approx(2.5 / 6) and found["retrieved"] == pytest.approx(3.5 / 6)
    assert found["lost"] == {
        "retrieval": pytest.approx(1.5 / 6),
        "truncation": pytest.approx(1 / 6),
        "model": pytest.approx(1 / 6),
    }
    assert found["n_lost"] == {"retrieval": 2, "truncation": 1, "model": 1}
    mean = sum(value for row, value in rows[:6]) / 6
    assert sum(found["lost"].values()) == pytest.approx(1 - mean)
    assert found["score_with"] == 0.5 and found["score_without"] == pytest.approx(1.5 / 4)
    assert evidence([rows[-1][0]], rows[-1:], 1.0) is None
    unbounded = evidence([row for row, _ in rows], rows, float("inf"))
    assert unbounded is not None and unbounded["lost"]["model"] is None


@pytest.mark.parametrize(
    ("left", "name"),
    [((1, 1, 1), "model"), ((1, 0, 0), "retrieval"), ((2, 2, 1), "truncation"), ((2, 1, 0), "retrieval")],
)
def test_the_first_step_that_drops_evidence_is_the_cause(left: tuple[int, int, int], name: str) -> None:
    assert cause(EvidenceLeft(*left, share=0.0)) == name


def test_truncation_takes_evidence_and_is_told(loom: Any) -> None:
    """Five depths; the middle of the context is cut away, and with it the needle in the middle."""
    arguments = ("passkey@words=400,depths=5,repeats=1", "--model", "toy", "--model-option", "window=2000")
    loom("run", *arguments, "--overlength", "truncate", "--out", "run")
    report = json.loads((loom.cwd / "run" / "report.json").read_text("utf-8"))
    (total,) = report["totals"]
    assert total["evidence"]["retrieved"] == 1.0 and total["evidence"]["recall"] == 0.8
    lost = total["evidence"]["lost"]
    assert lost == {"retrieval": 0.0, "truncation": 0.0, "model": 0.0}, "the double knows the answers"
    for name in ("report.html", "report.md"):
        assert "where answers were lost" in (loom.cwd / "run" / name).read_text("utf-8")


def test_plans_warn_of_tasks_that_need_the_whole_context(loom: Any) -> None:
    command = (
        "plan",
        "ruler@variant=loom:loom_niah_single_1,loom_fwe",
        "--model",
        "toy",
        "--lengths",
        "2k",
        "--limit",
        "1",
    )
    plan = json.loads(loom(*command, "--accel", "bm25:k=2", "--format", "json").out)
    (note,) = [note for note in plan["notes"] if "retrieves" in note]
    assert "bm25:k=2" in note and "fwe" in note and "niah_single_1" not in note
    assert not [n for n in json.loads(loom(*command, "--format", "json").out)["notes"] if "retrieves" in n]
