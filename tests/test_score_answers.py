"""`loom score BENCH --answers`: answers made elsewhere become a run like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def written(loom: Any, rows: list[Any], name: str = "answers.jsonl") -> Path:
    path: Path = loom.cwd / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_answers_become_a_run_that_compares_by_question(loom: Any) -> None:
    rows = [{"id": f"q{i}", "answer": str(i * 7) if i else "no"} for i in range(12)]
    file = written(loom, rows)
    done = loom("score", "fable:tell", "--answers", file, "--model-name", "theirs", "--out", "given")
    assert "12 answers of answers.jsonl scored, 0 questions have none" in done.out
    assert "The answers were not made by loom" in " ".join(done.out.split())
    folder = loom.cwd / "given"
    values = [row["value"] for row in loom.scores("fable_exact@1", folder)]
    assert sorted(values) == [0.0, *[1.0] * 11]
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert (report["model"]["name"], report["server"]["name"]) == ("theirs", "elsewhere")
    for page in ("report.html", "report.md"):
        assert "not made by loom" in (folder / page).read_text("utf-8")
    assert loom("score", "given").out.endswith("12 answers scored\n"), "scored again like any other run"
    loom("run", "fable:tell", "--model", "toy", "--out", "here")
    compared = json.loads(loom("compare", "given", "here", "--format", "json").out)
    (total,) = compared["totals"]
    assert total["scores"][0]["delta"]["value"] == pytest.approx(1 / 12)
    listed = loom.cwd / "list.json"
    listed.write_text(json.dumps([{"sample": "q1", "task": "fable:tell", "prediction": "7"}]), "utf-8")
    done = loom("score", "fable:tell", "--answers", listed, "--model-name", "one", code=3)
    assert "1 answers of list.json scored, 11 questions have none" in done.out


def test_unknown_ids_are_named_and_turns_are_lists(loom: Any) -> None:
    rows = [{"id": "q0", "answer": ["0", "0"]}, {"id": "q99", "answer": "x"}]
    done = loom("score", "fable@turns=2,n=1:tell", "--answers", written(loom, rows), "--model-name", "m", "--out", "r")
    assert "1 answers match no question of this run: fable:tell q99" in done.err
    assert "q99" in (loom.cwd / "r" / "report.md").read_text("utf-8")
    assert [row["value"] for row in loom.scores("fable_exact@1", loom.cwd / "r")] == [1.0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"id": "q0", "answer": "a"}\n{"id": "q0", "answer": "b"}\n', "line 1 and line 2"),
        ('{"id": "q0"}\n', "no answer"),
        ('{"answer": "a"}\n', "no id"),
        ("nonsense\n", "line 1"),
        ("[1]", "item 1"),
        ("[", "not valid JSON"),
    ],
)
def test_broken_answers_are_refused(loom: Any, text: str, why: str) -> None:
    file = loom.cwd / "bad"
    file.write_text(text, "utf-8")
    done = loom("score", "fable:tell", "--answers", file, "--model-name", "m", code=1)
    assert why in done.err and not (loom.cwd / "runs").exists()


def test_what_goes_together(loom: Any) -> None:
    assert "needs --model-name" in loom("score", "fable", "--answers", "x", code=2).err
    assert "cannot be read" in loom("score", "fable", "--answers", "x", "--model-name", "m", code=2).err
    assert "--seed goes with --answers" in loom("score", "runs/x", "--seed", "1", code=2).err
    file = written(loom, [{"id": "q0", "answer": "a"}])
    done = loom("score", "fable", "--answers", file, "--model-name", "m", code=1)
    assert "no task, and several are chosen" in done.err


def test_nothing_is_known_of_the_costs_of_given_answers(loom: Any) -> None:
    file = written(loom, [{"id": f"q{i}", "answer": "0"} for i in range(12)])
    loom("score", "fable:tell", "--answers", file, "--model-name", "theirs", "--out", "given")
    report = json.loads((loom.cwd / "given" / "report.json").read_text("utf-8"))
    for row in (*report["cells"], *report["totals"]):
        known = {name: row["cost"][name] for name in ("n_timed", "n_calls", "conditions", "comparable")}
        assert known == {"n_timed": 0, "n_calls": 0, "conditions": [], "comparable": True}
        assert {value for name, value in row["cost"].items() if name not in known} == {None}
    assert not [banner for banner in report["banners"] if "not comparable" in banner["text"]]


def test_a_tokenizer_makes_the_questions(loom: Any) -> None:
    """Without one, lengths are estimated; with one, the questions are those of `loom prompts --model`."""
    asked = ("babilong@samples=1:loom_qa1", "--lengths", "512")
    (told,) = loom("prompts", *asked, "--model", "loom-tiny", "--format", "jsonl").out.splitlines()
    file = written(loom, [{"id": json.loads(told)["id"], "answer": "none"}])
    given = ("--answers", file, "--model-name", "m")
    loom("score", *asked, *given, "--tokenizer", "loom-tiny", "--out", "exact")
    loom("score", *asked, *given, "--out", "estimated")
    exact, estimated = (
        json.loads((loom.cwd / name / "samples.jsonl").read_text("utf-8")) for name in ("exact", "estimated")
    )
    assert estimated["meta"]["length_estimated"] and "length_estimated" not in exact["meta"]
    assert exact["length"] == json.loads(told)["n_tokens"]
    assert "--tokenizer goes with --answers" in loom("score", "exact", "--tokenizer", "x", code=2).err
