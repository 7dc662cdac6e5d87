"""L-Eval on the real extracts at ../shared: documents, questions, both wordings, cuts, second calls, scores, tables.

The authors' programs are not at hand: programs of the same shape, in other words, stand in for them here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loom_bench_leval.benchmark import LEval, cut_by_words
from loom_bench_leval.plugin import EXAM, F1, ROUGE, TASKS, LEvalOptions
from loom_bench_leval.table import GEOMETRIC, STAND_IN
from loom_kit.gold import agrees, score_gold_row
from loom_kit.upstream import put

from loom_core.api import (
    DataDir,
    DataError,
    Graded,
    LoomError,
    Prompt,
    Response,
    Sample,
    Scored,
    Task,
    Timing,
    Unavailable,
    installed,
)
from loom_core.api.doubles import ToyTokenizer
from loom_core.api.serving import messages
from loom_core.doubles.server import oracle_text

SHARED = Path(os.environ.get("LOOM_SHARED") or Path(__file__).resolve().parents[4] / "shared")
MIRROR = SHARED / "data"
RECORDS = MIRROR / "leval" / "LEval-data"
needs_shared = pytest.mark.skipif(not RECORDS.is_dir(), reason=f"no L-Eval files at {RECORDS}")
HERE = [task for task in TASKS if task not in ("codeU", "narrative_qa")]


def path_of(task: str) -> str:
    return f"LEval-data/{'Closed' if task in EXAM else 'Open'}-ended-tasks/{task}.jsonl"


def task_of(benchmark: LEval, name: str) -> Task:
    return next(task for task in benchmark.tasks(()) if task.name == name)


def read(tmp_path: Path, mirror: Path, name: str, **options: Any) -> tuple[list[Sample], DataDir]:
    data = DataDir(mirror=mirror, cache=tmp_path / "cache", offline=True)
    benchmark = LEval(LEvalOptions(**options))
    return list(benchmark.samples(task_of(benchmark, name), data, ToyTokenizer(), ())), data


def rows_of(task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (MIRROR / "leval" / path_of(task)).read_text("utf-8").split("\n") if line]


def said(text: str) -> Response:
    timing = Timing(queued=0.0, started=0.0, first_token=0.0, ended=0.0)
    return Response(key="", text=text, finish="stop", n_in=0, n_out=0, timing=timing)


# --- documents and questions -----------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("name", HERE)
def test_every_real_file_is_read_whole(tmp_path: Path, name: str) -> None:
    samples, data = read(tmp_path, MIRROR, name)
    asked = [row for row in rows_of(name) if row["evaluation"] in ("exam", "f1", "rouge")]
    assert len(samples) == sum(len(row["instructions"]) for row in asked) and not data.bad
    assert not any(used.extract for used in data.used())
    by_id = {sample.id: sample for sample in samples}
    assert len(by_id) == len(samples)
    for number, row in enumerate(rows_of(name), 1):
        for i, (instruction, reference) in enumerate(zip(row["instructions"], row["outputs"], strict=True), 1):
            sample = by_id.pop(f"loom-{name}-{number}-{i}", None)
            if sample is None:
                assert row not in asked
                continue
            assert sample.references == (reference,) and sample.prompt.context == row["input"]
            assert instruction in sample.prompt.text.removesuffix(row["input"])
    assert not by_id


@needs_shared
def test_documents_listed_again_for_judges_are_not_asked_twice(tmp_path: Path) -> None:
    rows = rows_of("financial_qa")
    asked = {row["input"] for row in rows if row["evaluation"] == "f1"}
    again = [row for row in rows if row["evaluation"] != "f1"]
    assert again and all(row["input"] in asked for row in again)
    assert len(read(tmp_path, MIRROR, "financial_qa")[0]) == 52


@needs_shared
def test_questions_on_a_document_share_its_prefix_and_documents_come_in_turn(tmp_path: Path) -> None:
    samples, _ = read(tmp_path, MIRROR, "quality")
    assert [sample.cluster for sample in samples[:15]] == [f"quality-{i}" for i in range(1, 16)]
    for sample in samples:
        first = next(one for one in samples if one.cluster == sample.cluster)
        assert sample.prompt.context_digest == first.prompt.context_digest
    assert len({sample.prompt.context_digest for sample in samples}) == 15
    topics = read(tmp_path, MIRROR, "topic_retrieval_longchat")[0]
    assert [sample.meta["topic"] for sample in topics[:6]] == [0, 1, 2, 0, 1, 2]


def test_groups() -> None:
    sizes = {"all": 20, "exam": 7, "f1": 6, "rouge": 7, "open": 13}
    for group, size in sizes.items():
        names = [task.name for task in LEval(LEvalOptions(group=group)).tasks(())]  # type: ignore[arg-type]
        assert len(names) == size
    assert {*EXAM, *F1, *ROUGE} == set(TASKS)
    without = {task.name for task in LEval(LEvalOptions()).tasks(()) if not task.retrieval}
    summaries = {"tv_show_summ", "patent_summ", "paper_assistant", "news_summ", "gov_report_summ"}
    assert without == summaries | {"codeU"}


# --- prompts ---------------------------------------------------------------------------------------------------------

CONFIG = '''
def get_sys_prompt(args, file_name):
    """Which prompt a task gets."""
    if "gsm" in file_name:
        sys_prompt = "MATH "
    elif "codeU" in file_name or "none" in file_name:
        sys_prompt = "CODE "
    elif "topic" in file_name:
        sys_prompt = "TOPIC "
    elif args.metric == "exam_eval":
        sys_prompt = "EXAM " + "one letter "
    else:
        sys_prompt = "OPEN "
    return sys_prompt
'''
SCRIPT = """
def main():
    for file_name in key_data_pairs:
        for d in data:
            for inst, out in zip(instructions, outputs):
                messages = [{"role": "system", "content": sys_prompt}]
                if "gsm" in file_name or "codeU" in file_name:
                    messages.append({"role": "user", "content": document + "\\n\\n" + inst})
                elif args.metric == "exam_eval":
                    context = "Text: {} Ask: {} \\nReply: "
                    messages.append({"role": "user", "content": context.format(document, inst)})
                else:
                    context = "Text: {} Do: {} " + f"in {len(out.split())} words. Go: "
                    messages.append({"role": "user", "content": context.format(document, inst)})
                if "sci_fi" in file_name:
                    again = inst.replace("described in the document.", "you live in.") + "\\nReply: "
                print("done".replace("a", "b"))
"""


@pytest.fixture
def with_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real records and programs of the authors' shape, pinned as they are."""
    mirror = tmp_path / "mirror"
    (mirror / "leval").mkdir(parents=True)
    (mirror / "leval" / "LEval-data").symlink_to(RECORDS)
    for name, text in (("LEval_config.py", CONFIG), ("turbo16k-test.py", SCRIPT)):
        put(mirror / "leval", f"Baselines/{name}", text.encode())
    repin(monkeypatch, mirror)
    return mirror


def repin(monkeypatch: pytest.MonkeyPatch, mirror: Path) -> None:
    from loom_bench_leval import benchmark
    from loom_kit.upstream import pinned

    pins = dict(benchmark.LEval(LEvalOptions()).pins)
    for name in (benchmark.CONFIG, benchmark.SCRIPT):
        short = name.removeprefix("leval/")
        made = pinned(short, (mirror / name).read_bytes())
        pins[name] = type(made)(pin=made.pin, folder="leval", sha256=made.sha256, n_bytes=made.n_bytes)
    monkeypatch.setattr(benchmark.LEval, "pins", pins)


@needs_shared
@pytest.mark.parametrize(
    ("name", "system", "before", "after"),
    [
        ("coursera", "EXAM one letter ", "Text: ", " Ask: {} \nReply: "),
        ("topic_retrieval_longchat", "TOPIC ", "Text: ", " Ask: {} \nReply: "),
        ("gsm100", "MATH ", "", "\n\n{}"),
        ("news_summ", "OPEN ", "Text: ", " Do: {} in WORDS words. Go: "),
        ("scientific_qa", "OPEN ", "Text: ", " Do: {} in WORDS words. Go: "),
    ],
)
def test_prompt_bytes_of_the_authors_wording(
    tmp_path: Path, with_programs: Path, name: str, system: str, before: str, after: str
) -> None:
    samples, data = read(tmp_path, with_programs, name)
    row = rows_of(name)[0]
    after = after.replace("WORDS", str(len(row["outputs"][0].split()))).replace("{}", row["instructions"][0])
    assert samples[0].id == f"{name}-1-1" and not data.notes
    rest = [s for s in samples[0].prompt.segments if s.kind != "system"]
    assert samples[0].prompt.segments[0].text == system and samples[0].prompt.segments[0].role == "system"
    assert "".join(s.text for s in rest).encode() == (before + row["input"] + after).encode()


@needs_shared
@pytest.mark.parametrize("wording", ["auto", "loom"])
def test_prompt_bytes_of_looms_wording_and_what_readers_are_told(tmp_path: Path, wording: str) -> None:
    samples, data = read(tmp_path, MIRROR, "tpo", wording=wording)
    row = rows_of("tpo")[0]
    system, *rest = samples[0].prompt.segments
    expected = f"The text:\n{row['input']}\n\nThe question: {row['instructions'][0]}\nThe answer, without any comment:"
    assert system.kind == "system" and "".join(s.text for s in rest) == expected
    assert samples[0].id == "loom-tpo-1-1"
    told = list(data.notes)
    assert ("loom's own wording" in told[0] and "LEval_config.py" in told[0]) if wording == "auto" else not told


@needs_shared
def test_the_authors_wording_is_never_replaced_where_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="LEval_config"):
        read(tmp_path, MIRROR, "tpo", wording="official")


@needs_shared
@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("LEval_config.py", '"gsm" in file_name', "lookup(file_name)", "a Call decides the prompt"),
        ("LEval_config.py", "get_sys_prompt", "other", "no function"),
        ("LEval_config.py", "args.metric", "args.mode", "an? Attribute decides"),
        ("LEval_config.py", "return sys_prompt", "return 3", "gives no text"),
        ("LEval_config.py", "return sys_prompt", "return (", "line"),
        ("turbo16k-test.py", "Ask: {}", "Ask:", "not one frame"),
        ("turbo16k-test.py", "inst.replace(", "inst.swap(", "second question"),
    ],
)
def test_programs_of_another_shape_are_refused_or_told(
    tmp_path: Path, with_programs: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, why: str
) -> None:
    program = with_programs / "leval" / "Baselines" / file
    program.write_text(program.read_text("utf-8").replace(old, new), "utf-8")
    repin(monkeypatch, with_programs)
    with pytest.raises(DataError, match="cannot be read") as caught:
        read(tmp_path, with_programs, "tpo", wording="official")
    assert re.search(why, caught.value.why)
    samples, data = read(tmp_path, with_programs, "tpo")
    assert samples[0].meta["wording"] == "loom" and "cannot be read" in next(iter(data.notes))


@needs_shared
def test_a_changed_program_is_no_stand_in_but_an_error(tmp_path: Path, with_programs: Path) -> None:
    (with_programs / "leval/Baselines/LEval_config.py").write_text(CONFIG + "\n", "utf-8")
    with pytest.raises(DataError, match="altered data file"):
        read(tmp_path, with_programs, "tpo")


@needs_shared
def test_science_fiction_is_asked_twice(tmp_path: Path, with_programs: Path) -> None:
    samples, _ = read(tmp_path, with_programs, "sci_fi")
    sample, benchmark = samples[0], LEval(LEvalOptions())
    turn = benchmark.follow_up(sample, [said("True")])
    instruction = rows_of("sci_fi")[0]["instructions"][0]
    assert "described in the document." in instruction and turn is not None
    second = instruction.replace("described in the document.", "you live in.") + "\nReply: "
    # The authors append the second question to the messages of the first call; its answer is not among them.
    assert messages(turn.prompt) == [*messages(sample.prompt), {"role": "user", "content": second}]
    assert [row["role"] for row in messages(turn.prompt)] == ["system", "user", "user"]
    alone = LEval(LEvalOptions(second="alone")).follow_up(sample, [said("True")])
    assert alone is not None and messages(alone.prompt) == [{"role": "user", "content": second}]
    assert benchmark.follow_up(sample, [said("True"), said("False")]) is None
    metrics = {n: installed().load(installed().metrics.get(n))() for n in task_of(benchmark, "sci_fi").metrics}
    assert sample.references == ("True [fact: False]",)
    right = benchmark.score(sample, [said("true"), said(" False.")], metrics)
    assert [scored.value for scored in right.values()] == [1.0, 1.0]
    swapped = benchmark.score(sample, [said("False"), said("False")], metrics)
    assert [scored.value for scored in swapped.values()] == [0.0, 1.0]


@needs_shared
@pytest.mark.parametrize("name", HERE)
def test_the_oracle_has_the_full_score_and_silence_none(tmp_path: Path, name: str) -> None:
    benchmark = LEval(LEvalOptions())
    metrics = {n: installed().load(installed().metrics.get(n))() for n in task_of(benchmark, name).metrics}
    for sample in read(tmp_path, MIRROR, name)[0]:
        turns = 2 if benchmark.follow_up(sample, [said("")]) else 1
        best = benchmark.score(sample, [said(oracle_text(sample, step)) for step in range(turns)], metrics)
        null = benchmark.score(sample, [said("") for _ in range(turns)], metrics)
        assert [scored.value for scored in best.values()] == [1.0] * len(metrics), sample.id
        assert [scored.value for scored in null.values()] == [0.0] * len(metrics), sample.id


# --- cuts and bad records --------------------------------------------------------------------------------------------


def test_documents_are_cut_by_words_250_at_a_time() -> None:
    words = [f"{i:03d}" for i in range(1000)]
    text, tokenizer = " ".join(words), ToyTokenizer()
    # 4 bytes a word: 600, 350, then 100 words are the first below 600 tokens.
    assert cut_by_words(text, tokenizer, 600, from_left=False) == " ".join(words[:100])
    assert cut_by_words(text, tokenizer, 600, from_left=True) == " ".join(words[-100:])
    assert cut_by_words(text, tokenizer, 4000, from_left=False) == text
    assert cut_by_words(text, tokenizer, 3, from_left=True) == ""


def test_a_cut_keeps_white_space_and_counts_on_below_zero() -> None:
    text, tokenizer = "a\n\nb  c\td " * 20, ToyTokenizer()
    words = text.split(" ")
    assert len(words) == 61 and len(text) == 200 and " ".join(words) == text
    # 199 words are all of them; 250 fewer are -51: all but the last 51, or all but the first 51.
    assert cut_by_words(text, tokenizer, 199, from_left=False) == " ".join(words[:-51])
    assert cut_by_words(text, tokenizer, 199, from_left=True) == " ".join(words[51:])
    assert "a\n\nb  c\td" in cut_by_words(text, tokenizer, 199, from_left=False)


@needs_shared
def test_the_authors_length_cuts_documents(tmp_path: Path) -> None:
    samples, _ = read(tmp_path, MIRROR, "tpo", max_length=2512)
    document = rows_of("tpo")[0]["input"]
    assert len(document.encode()) > 2000
    assert samples[0].prompt.context == cut_by_words(document, ToyTokenizer(), 2000, from_left=False)
    assert samples[0].meta["cut"] is True
    with pytest.raises(LoomError, match="counts tokens"):
        data = DataDir(mirror=MIRROR, cache=tmp_path / "cache", offline=True)
        benchmark = LEval(LEvalOptions(max_length=2512))
        list(benchmark.samples(task_of(benchmark, "tpo"), data, None, ()))
    sides = {task.name: task.truncation.side for task in LEval(LEvalOptions()).tasks(())}
    assert {name for name, side in sides.items() if side == "left"} == {"codeU"}


def test_bad_records_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = {"input": "a b", "instructions": ["x", "y"], "outputs": ["1", "2"], "evaluation": "exam"}
    rows: list[Any] = [good, {**good, "outputs": ["1"]}, {**good, "instructions": "x"}, {**good, "input": 3}, good]
    rows.append({name: value for name, value in good.items() if name != "evaluation"})
    content = "\n".join(map(json.dumps, rows)).encode()
    put(tmp_path / "mirror" / "leval", path_of("codeU"), content)
    extract = f'file = [{{ path = "{path_of("codeU")}", sha256 = "{hashlib.sha256(content).hexdigest()}" }}]'
    put(tmp_path / "mirror" / "leval", "EXTRACT.toml", extract.encode())
    samples, data = read(tmp_path, tmp_path / "mirror", "codeU")
    assert [sample.id for sample in samples] == ["loom-codeU-1-1", "loom-codeU-5-2", "loom-codeU-1-2", "loom-codeU-5-1"]
    assert [(bad.place, bad.field) for bad in data.bad] == [
        ("line 2", "outputs"),
        ("line 3", "instructions"),
        ("line 4", "input"),
        ("line 6", "evaluation"),
    ]


@needs_shared
def test_what_is_absent_is_unavailable_and_what_is_changed_refused(tmp_path: Path) -> None:
    for name in ("codeU", "narrative_qa"):
        with pytest.raises(Unavailable, match=name):
            read(tmp_path, MIRROR, name)
    changed = (RECORDS / "Closed-ended-tasks/tpo.jsonl").read_bytes() + b"\n"
    put(tmp_path / "mirror" / "leval", path_of("tpo"), changed)
    with pytest.raises(DataError, match=r"altered data file .*tpo\.jsonl"):
        read(tmp_path, tmp_path / "mirror", "tpo")


# --- scores and tables -----------------------------------------------------------------------------------------------


def gold() -> Iterator[Any]:
    files = sorted((SHARED / "gold-examples").glob("leval_*.json"))
    for path in files:
        for i, row in enumerate(json.loads(path.read_text("utf-8"))):
            yield pytest.param(row, id=f"{path.stem}-{i}")
    if not files:
        yield pytest.param(None, marks=pytest.mark.skip(reason=f"no gold rows at {SHARED}"))


@pytest.mark.parametrize("row", list(gold()))
def test_equals_the_official_score(row: dict[str, Any]) -> None:
    ours, official = score_gold_row(row), row["official_score"]
    if isinstance(official, dict) and "raises" in official:
        # Where the authors' scorer raises, the sample stays and scores 0.
        assert not any(ours if isinstance(ours, list) else [ours])
    else:
        assert agrees(ours, official, 1e-6), (ours, official)


def graded(task: str, values: dict[str, float | None], **meta: Any) -> Graded:
    sample = Sample(id="x", task=task, prompt=Prompt(segments=()), references=("",), meta=meta)
    return Graded(task=task, sample=sample, repeat=0, scored={n: Scored(value=v) for n, v in values.items()})


def test_official_table() -> None:
    rouge = [("leval_rouge1", 0.8, 0.4), ("leval_rouge2", 0.1, 0.3), ("leval_rouge_l", 0.5, 0.3)]
    rows = [graded("news_summ", {name: row[i] for name, *row in rouge}, wording="official") for i in (0, 1)]
    rows += [graded("topic_retrieval_longchat", {"leval_topic": v}, topic=i) for i, v in ((0, 1), (1, 0), (0, 0))]
    rows += [graded("sci_fi", {"leval_loyalty": 1, "leval_fact": 0}), graded("tpo", {"leval_choice": 1 / 3})]
    rows += [graded("multidoc_qa", {"leval_f1": None}, wording="loom")]
    lines = {(line.name, line.metric): line for line in LEval(LEvalOptions()).aggregate(rows)}
    shown = {name: round(line.value, line.digits) for name, line in lines.items() if line.value is not None}
    assert shown == {
        ("news_summ", "leval_rouge1"): 60.0,
        ("news_summ", "leval_rouge2"): 20.0,
        ("news_summ", "leval_rouge_l"): 40.0,
        # (60 · 20 · 40) ^ (1/3)
        ("news_summ", GEOMETRIC): 36.3424,
        ("topic_retrieval_longchat first topic", "leval_topic"): 50.0,
        ("topic_retrieval_longchat second topic", "leval_topic"): 0.0,
        ("topic_retrieval_longchat average of the three topics", "mean"): 25.0,
        ("sci_fi loyalty", "leval_loyalty"): 100.0,
        ("sci_fi fact", "leval_fact"): 0.0,
        ("sci_fi average of fact and loyalty", "mean"): 50.0,
        ("tpo", "leval_choice"): 33.3333,
    }
    empty = lines["multidoc_qa", "leval_f1"]
    assert (empty.value, empty.n, empty.missing, empty.note) == (None, 0, 1, STAND_IN)
    assert lines["tpo", "leval_choice"].note == ""
    average = lines["topic_retrieval_longchat average of the three topics", "mean"]
    assert (average.value, average.note) == (25.0, "mean of 2 of 3")


def test_averages_are_of_what_is_printed() -> None:
    values = [1.0, 0.0, 0.0]
    rows = [graded("topic_retrieval_longchat", {"leval_topic": v}, topic=i) for i in range(3) for v in values[i:]]
    lines = LEval(LEvalOptions()).aggregate(rows)
    assert [round(line.value or 0, 4) for line in lines[:3]] == [33.3333, 0.0, 0.0]
    assert lines[-1].value == 33.3333 / 3


def test_answers_are_stripped_as_the_authors_script_does() -> None:
    metrics = {"leval_code": installed().load(installed().metrics.get("leval_code"))()}
    sample = Sample(id="x", task="codeU", prompt=Prompt(segments=()), references=("5",))
    answer = said("\n\nIt gives 1 and 5 and so on\n")
    assert LEval(LEvalOptions()).score(sample, [answer], metrics)["leval_code"].value == 1.0
