"""Prompts of one's own: how a template is read and filled, and that a run with one is another task everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.api import Evidence, Prompt, Sample, UsageError, segment
from loom_core.api.templates import filled, merged, pieces
from loom_core.prompting.ownprompt import MARK, OwnPrompt, read_templates

TOY = ("--model", "toy")


def sample() -> Sample:
    """Two contexts with words between, evidence in the second."""
    return Sample(
        id="s",
        task="t",
        prompt=Prompt(
            segments=(
                segment("system", "Be short."),
                segment("instruction", "Read.\n"),
                segment("context", "One."),
                segment("instruction", " And: "),
                segment("context", "Two holds it."),
                segment("question", "\nWhat holds it?"),
                segment("prefill", " It is"),
            )
        ),
        references=("two",),
        evidence=(Evidence(segment=4, start=4, end=9),),
        meta={"question": "What holds it?", "topic": "numbers", "n": 3},
    )


def test_fields_take_their_places() -> None:
    found = OwnPrompt("{system}About {topic} {{!}}: {context}\nSo: {question}{prefill}", "here").of(sample())
    assert [(part.kind, part.role, part.text) for part in found.prompt.segments] == [
        ("system", "system", "Be short."),
        ("instruction", "user", "About numbers {!}: "),
        ("context", "user", "One."),
        ("context", "user", "Two holds it."),
        ("question", "user", "\nSo: What holds it?"),
        ("prefill", "assistant", " It is"),
    ]
    (evidence,) = found.evidence
    assert found.prompt.segments[evidence.segment].text[evidence.start : evidence.end] == "holds"
    assert found.references == ("two",) and found.id == "s"


def test_a_question_may_stand_first() -> None:
    found = OwnPrompt("{question}\n{context}", "here").of(sample())
    assert [part.kind for part in found.prompt.segments] == ["question", "instruction", "context", "context"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("no field", "names no field"),
        ("{context} {context}", "names {context} twice"),
        ("{context", "cannot be read"),
        ("{0}", "not a plain name"),
        ("{context!r}", "not a plain name"),
        ("{prefill} {context}", "nothing may follow {prefill}"),
        ("{context} {system}", "nothing may come before {system}"),
    ],
)
def test_bad_templates_are_refused(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        OwnPrompt(text, "mine.txt").check()
    assert what in caught.value.what and caught.value.where == "mine.txt"


def test_an_unknown_field_names_the_near_one() -> None:
    with pytest.raises(UsageError) as caught:
        OwnPrompt("{contxt}", "mine.txt").of(sample())
    assert "{contxt}" in caught.value.what and "context" in caught.value.hint


@given(st.lists(st.tuples(st.text(alphabet="ab{} \n"), st.sampled_from(["a", "b", None]))))
def test_filling_is_what_format_does(parts: list[tuple[str, str | None]]) -> None:
    template = "".join(
        text.replace("{", "{{").replace("}", "}}") + (f"{{{name}}}" if name else "") for text, name in parts
    )
    values = {"a": "{x}", "b": ""}
    segments = {"a": [segment("context", "{x}")], "b": [segment("instruction", "")]}
    made = merged(filled(pieces(template, where="here"), segments))
    assert "".join(one.text for one in made) == template.format(**values)


@pytest.mark.parametrize("given", ["fable:tell", "fable=x.txt", ":tell=x.txt", "fable:tell=none.txt"])
def test_settings_that_name_no_file_are_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        read_templates([given], tmp_path, where="--template")


def test_a_run_with_an_own_prompt_is_another_task_everywhere(loom: Any) -> None:
    (loom.cwd / "mine.txt").write_text("{context}\n\nMy question: {question}", "utf-8")
    official = ("run", "fable:tell", *TOY, "--limit", "3", "--out")
    own = (*official[:-1], "--template", "fable:tell=mine.txt", "--out")
    loom(*official, "official")
    done = loom(*own, "own")
    plan = json.loads((loom.cwd / "own" / "plan.json").read_text("utf-8"))
    (task,) = plan["tasks"]
    assert task["name"].startswith(f"fable:tell{MARK}") and task["own_prompt"]
    assert any("the user's own prompt" in note for note in plan["notes"])
    assert task["name"] in done.out and "own prompt" in done.out
    lines = json.loads((loom.cwd / "own" / "official.json").read_text("utf-8"))["fable"]["dense"]
    assert all("own prompt: tell" in line["note"] for line in lines)
    keys = [{row["job"] for row in loom.records(loom.cwd / run)} for run in ("official", "own")]
    assert len(keys[0]) == len(keys[1]) == 3 and not keys[0] & keys[1]
    board = json.loads(loom("leaderboard", "official", "own", "--format", "json").out)
    assert [len(ranking["rows"]) for ranking in board["rankings"]] == [1, 1]
    # The run holds the text: the file may go, and the same questions are asked.
    (loom.cwd / "mine.txt").unlink()
    loom("run", "own")
    assert "fable:tell" in loom("run", "fable:chat", *TOY, "--template", "fable:tell=none", code=2).err


def test_a_template_for_a_task_that_does_not_run_is_refused(loom: Any) -> None:
    (loom.cwd / "mine.txt").write_text("{context}", "utf-8")
    done = loom("plan", "fable:chat", *TOY, "--template", "fable:tell=mine.txt", code=2)
    assert "a template is for 'fable:tell', which does not run" in done.err


def test_a_study_names_templates_relative_to_itself(loom: Any) -> None:
    folder = loom.cwd / "study"
    folder.mkdir()
    (folder / "mine.txt").write_text("{context} {question}", "utf-8")
    (folder / "study.toml").write_text(
        'benchmarks = ["fable:tell"]\nmodel = "toy"\n[templates]\n"fable:tell" = "mine.txt"\n', "utf-8"
    )
    assert MARK in loom("plan", "study/study.toml").out
