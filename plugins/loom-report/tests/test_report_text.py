"""Foreign text in a report stays text; numbers read as they should; which samples a page shows; memory."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st
from loom_kit.runs import DENSE, HOSTILE, Made, MadeArm, MadeTask, hostile, make_run, retrieves
from loom_report import files as report_module, ledger as ledger_module
from loom_report.render import html, markdown, samples, tables, terminal, text
from rich.console import Console

from loom_core.api import Json, Sample
from loom_core.run.store import RunFolder, read_json

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
TASK = MadeTask(levels={"1k": 64, "2k": 128}, depths=(0.0, 1.0), repeats=4)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", retrieves({SNAP.name: 0.5}), tasks=[TASK], arms=[DENSE, SNAP])


def shown(report: dict[str, Json], width: int = 100) -> str:
    console = Console(width=width, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        terminal.show(report, console)
    return capture.get()


class Tags(HTMLParser):
    """Every element of a page with its attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    task = MadeTask(levels={"1k": 32}, depths=(0.5,), repeats=len(HOSTILE))
    folder = make_run(tmp_path / "run", hostile, tasks=[task], arms=[DENSE, SNAP])
    plan = read_json(folder.plan)
    plan["notes"] = list(HOSTILE[:-1])
    plan["model"]["name"] = HOSTILE[1]
    folder.plan.write_text(json.dumps(plan), "utf-8")
    report = report_module.write(folder)
    page = folder.report_html.read_text("utf-8")
    assert len(page) < 300_000
    tags = Tags()
    tags.feed(page)
    names = [name for name, _ in tags.found]
    assert "img" not in names
    assert "iframe" not in names
    assert names.count("script") == 1 + 1 + 1  # one chunk, meta, the page's own
    for name, attributes in tags.found:
        assert not any(key.startswith("on") for key in attributes), (name, attributes)
        assert "javascript:" not in (attributes.get("href") or "")
        assert name != "a" or (attributes.get("href") or "").startswith("#")
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "\x1b" not in shown(report)
    assert "[bold red]markup[/]" in shown(report)
    written = folder.report_md.read_text("utf-8")
    assert "<script>" not in written
    assert "\u202e" not in written


@given(st.recursive(st.text() | st.none() | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=8))
@settings(deadline=None)
def test_embedded_data_survives_and_cannot_end_its_element(value: Json) -> None:
    encoded = html.data(value)
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded) == value


@given(st.text())
def test_visible_text_has_nothing_that_acts(value: str) -> None:
    seen = text.visible(value)
    seen.encode("utf-8")
    assert not any(ord(c) < 32 and c not in "\n\t" for c in seen)
    assert text.visible(seen) == seen
    assert "\n" not in text.one_line(value)
    assert len(text.one_line(value, 50)) <= 50
    assert not re.search(r"(?<!\\)[<>|`*\[\]]", markdown.escape(value).replace("&amp;", ""))


@given(st.text(max_size=60), st.integers(1, 40))
def test_cut_in_the_middle(value: str, limit: int) -> None:
    head, cut, tail = text.cut_middle(value, limit)
    assert len(head) + len(tail) + cut == len(value)
    assert len(head) + len(tail) <= max(limit, 0) or not cut
    assert value.startswith(head)
    assert value.endswith(tail)


@pytest.mark.parametrize(
    ("shown_text", "expected"),
    [
        (text.byte_count(999), "999 B"),
        (text.byte_count(999_999), "1.00 MB"),
        (text.byte_count(1_234_567), "1.23 MB"),
        (text.byte_count(0), "0 B"),
        (text.byte_count(5e15), "5000 TB"),
        (text.duration(0.0314159), "31.4 ms"),
        (text.duration(2e-5), "20.0 µs"),
        (text.duration(0.99999), "1.00 s"),
        (text.duration(600), "10.0 min"),
        (text.share(0.125), "12.5 %"),
        (text.share(1.0), "100 %"),
        (text.share(0.00001), "<0.1 %"),
        (text.signed(-0.0001, 1), "0.000"),
        (text.signed(-0.25, 1), "−0.250"),
        (text.signed(6.04, 100), "+6.0"),
        (text.p_value(0.0), "<0.001"),
        (text.p_value(0.04), "0.040"),
        (text.score(None, 1), text.NONE),
        (text.round_number("5.00 MB"), "5 MB"),
        (text.round_number("0 B"), "0"),
        (text.percent_depth(0.125), "12.5 %"),
    ],
)
def test_how_numbers_read(shown_text: str, expected: str) -> None:
    assert shown_text == expected


def test_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[MadeTask(name="=cmd()", levels={"1k": 16})], arms=[DENSE])
    assert "\n'=cmd()," in tables.to_csv(report_module.build(folder)[0])


def chunks(folder: RunFolder, **limits: int) -> list[dict[str, Json]]:
    plan = read_json(folder.plan)
    return list(samples.chunks(folder, ledger_module.read(folder, plan), **limits))


def test_samples_show_disagreements_first_and_the_evidence(tmp_path: Path) -> None:
    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        number = int(sample.id.rpartition("-")[2])
        right = number < 4 or (number == 7 and arm.name == "dense")
        return Made(text=f" {sample.references[0]}", values={"exact_match": float(right)})

    task = MadeTask(levels={"8k": 8192}, depths=(0.5,), repeats=8)
    chunk = chunks(make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP]))[0]
    shown_samples = chunk["samples"]
    assert [s["disagree"] for s in shown_samples] == [True] + [False] * 7
    assert [s["wrong"] for s in shown_samples] == [True] * 4 + [False] * 4
    context = next(s for s in shown_samples[0]["segments"] if s["kind"] == "context")
    kinds = [kind for kind, _ in context["pieces"]]
    assert kinds == ["cut", "text", "mark", "text", "cut"]
    assert shown_samples[0]["references"][0][0][1] in context["pieces"][2][1]
    seen = sum(value if kind == "cut" else len(value) for kind, value in context["pieces"])
    assert seen == context["n"]
    assert [a["arm"] for a in shown_samples[0]["answers"]] == ["dense", SNAP.name]


def test_samples_keep_to_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = MadeTask(levels={"1k": 64, "2k": 64}, depths=(0.5,), repeats=40)
    folder = make_run(tmp_path / "run", retrieves({SNAP.name: 0.5}), tasks=[task], arms=[DENSE, SNAP])
    full = chunks(folder)
    assert [(c["n"], c["shown"]) for c in full] == [(40, 40), (40, 40)]
    tight = chunks(folder, most_bytes=30_000)
    assert all(0 < c["shown"] < 40 for c in tight)
    assert sum(len(json.dumps(c["samples"], ensure_ascii=False)) for c in tight) <= 31_000
    monkeypatch.setattr(samples, "MOST_SAMPLES", 7)
    assert [c["shown"] for c in chunks(folder)] == [7, 7]


def test_a_lost_context_costs_only_itself(run: RunFolder) -> None:
    for path in run.contexts.iterdir():
        path.unlink()
    found = [sample for chunk in chunks(run) for sample in chunk["samples"]]
    assert len(found) == 16
    assert all("the context cannot be shown" in sample["note"] for sample in found)
    report_module.write(run)


def test_evidence_out_of_place_is_no_harm() -> None:
    pieces = samples._around("abcdef", [(2, 4), (3, 5), (90, 95)])
    assert "".join(value for kind, value in pieces if kind != "cut") == "abcdef"


def test_memory_is_flat_in_the_length_of_answers(tmp_path: Path) -> None:
    """40 MB of responses: the report's own memory stays far below them."""
    import tracemalloc

    def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
        return Made(text="y" * 400_000, values={"exact_match": 1.0})

    task = MadeTask(levels={"1k": 16}, depths=(0.5,), repeats=50)
    folder = make_run(tmp_path / "run", answer, tasks=[task], arms=[DENSE, SNAP])
    assert folder.responses.stat().st_size > 40_000_000
    report_module.build(folder)
    tracemalloc.start()
    report_module.write(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
