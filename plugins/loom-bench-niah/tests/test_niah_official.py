"""The official variant on files of the shape that the authors' have, and the metrics. The wording here is made up."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from loom_bench_niah.benchmark import ESSAYS, Niah, spaced
from loom_bench_niah.haystack import TokenHaystack
from loom_bench_niah.judging import Judge, mark
from loom_bench_niah.plugin import NiahJudgeOptions, NiahOptions
from loom_bench_niah.scoring import Contains, WordRecall, contains, word_recall
from loom_bench_niah.wording import read_frame
from loom_parity.contract import answer

from loom_core.api import DataDir, DataError, Graded, Prompt, Sample, Scored, Unavailable, installed
from loom_core.api.doubles import ToyTokenizer

ROOT = Path(__file__).resolve().parents[3]
MIRROR = Path(os.environ.get("LOOM_SHARED", ROOT.parent / "shared")) / "data"
DIGESTS = MIRROR.parent / "prompt-digests" / "niah.json"
RUN = """
@dataclass
class CommandArgs():
    provider: str = "openai"
    needle: Optional[str] = "\\nThe best thing to see in Port Amsel is the made-up tower.\\n"
    retrieval_question: Optional[str] = "What is the best thing to see in Port Amsel?"
"""
OPENAI = """
class OpenAI(ModelProvider):
    def generate_prompt(self, context: str, retrieval_question: str) -> str | list[dict[str, str]]:
        return [
            {"role": "system", "content": "Answer shortly."},
            {"role": "user", "content": context},
            {"role": "user", "content": f"{retrieval_question} Look {{only}} there."},
        ]
"""
EVALUATOR = '''
class OpenAIEvaluator(Evaluator):
    CRITERIA = {"fit": """
        Score 1: {none} of it.
        Score 10: all of it."""}
'''
TEMPLATE = """
from somewhere import ChatPromptTemplate
raise SystemExit("executed")
SYSTEM_MESSAGE = "Judge."
CRITERIA_INSTRUCTIONS = "By:\\n"
SCORING_TEMPLATE_WITH_REFERENCE = ChatPromptTemplate.from_messages(
    [
        ("system", SYSTEM_MESSAGE),
        ("human", "{criteria}" "[Truth]\\n{reference}\\n[Question]\\n{input}\\n[Answer]\\n{prediction}\\n[End]"),
    ]
)
"""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror with every file that the variant needs, labelled as extracts."""
    rows: dict[str, list[str]] = {}
    made = {"run.py": RUN, "providers/openai.py": OPENAI, "evaluators/openai.py": EVALUATOR, "prompt.py": TEMPLATE}
    for source in Niah(NiahOptions()).sources():
        path = source.pin.rpartition(":")[2]
        name = path.rpartition("/")[2]
        essay = "".join(f"{name[:-4]} says sentence {i}. " for i in range(12))
        content = next((text for end, text in made.items() if path.endswith(end)), essay)
        file = tmp_path / "mirror" / source.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")
        sha256 = hashlib.sha256(content.encode()).hexdigest()
        row = f'[[file]]\npath = "{path}"\nsha256 = "{sha256}"\nbytes = {len(content.encode())}\n'
        rows.setdefault(source.folder, []).append(row)
    for folder, found in rows.items():
        (tmp_path / "mirror" / folder / "EXTRACT.toml").write_text("\n".join(found), "utf-8")
    return tmp_path / "mirror"


def samples(mirror: Path, lengths: tuple[int, ...], **options: Any) -> list[Sample]:
    bench = Niah(NiahOptions(variant="official", **options))
    (task,) = bench.tasks(lengths)
    data = DataDir(mirror=mirror, cache=mirror.parent / "cache", offline=True).for_benchmark("niah")
    return list(bench.samples(task, data, ToyTokenizer(), lengths))


def test_the_task_needs_a_judge() -> None:
    (task,) = Niah(NiahOptions(variant="official")).tasks(())
    assert task.name == "official"
    assert task.metrics[0] == "niah_judge"
    assert task.judge is not None
    assert task.generation.max_tokens == 300
    assert len(task.sources) == 53


def test_prompts_by_hand(mirror: Path) -> None:
    needle = "\nThe best thing to see in Port Amsel is the made-up tower.\n"
    rows = {row.depth: row for row in samples(mirror, (3000,), depths=3)}
    essays = "".join(file.read_text() for file in sorted((mirror / "niah").rglob("*.txt")))
    kept = essays[: 3000 - 200 - len(needle)]
    for depth, row in rows.items():
        system, context, question = row.prompt.segments
        assert (system.kind, system.role, system.text) == ("system", "system", "Answer shortly.")
        assert question.text == "What is the best thing to see in Port Amsel? Look {only} there."
        assert (context.kind, context.role, question.role) == ("context", "user", "user")
        assert depth is not None
        cut = len(kept) if depth == 1 else kept[: int(len(kept) * depth)].rfind(".") + 1
        assert context.text == kept[:cut] + needle + kept[cut:]
        assert row.references == (needle.strip(),)
        (evidence,) = row.evidence
        assert context.text[evidence.start : evidence.end] == needle


def test_essays_begin_anew_where_they_are_too_short(mirror: Path) -> None:
    row = samples(mirror, (60000,), depths=1)[0]
    essays = "".join(file.read_text() for file in sorted((mirror / "niah").rglob("*.txt")))
    assert len(essays) < 30000
    assert row.prompt.context.count("addiction says sentence 0.") == -(-(60000 - 300) // len(essays))
    assert len(row.prompt.context) == 60000 - 200


@pytest.mark.parametrize("path", ["needlehaystack/run.py", "needlehaystack/providers/openai.py"])
def test_missing_files_make_it_unavailable(mirror: Path, path: str) -> None:
    (mirror / "niah" / path).unlink()
    with pytest.raises(Unavailable, match=rf"missing data file {path}"):
        samples(mirror, (3000,))


@pytest.mark.skipif(not (MIRROR / "niah").is_dir(), reason=f"no upstream files at {MIRROR}")
def test_unavailable_where_the_mirror_has_essays_alone(tmp_path: Path) -> None:
    if (MIRROR / "niah/needlehaystack/run.py").exists():
        pytest.skip("the mirror has the authors' needle")
    data = DataDir(mirror=MIRROR, cache=tmp_path, offline=True)
    bench = Niah(NiahOptions(variant="official"))
    with pytest.raises(Unavailable, match=r"run\.py"):
        next(bench.samples(bench.tasks(())[0], data, None, ()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("def other(): return []", "no function"),
        ("def generate_prompt(c): return [{'role': 'user', 'content': load()}]", "Call"),
        ("def generate_prompt(c): return [{'role': 'user', 'content': 'hello'}]", "context"),
        ("def generate_prompt(c): return [{'role': 'tool', 'content': context}]", "role"),
        ("def generate_prompt(c) return", "syntax|expected"),
    ],
)
def test_messages_this_plugin_does_not_know(text: str, why: str) -> None:
    with pytest.raises(DataError, match=f"(?s)messages cannot be read.*here.*({why})"):
        read_frame(text, "here")


def test_the_needle_must_be_text(mirror: Path) -> None:
    path = mirror / "niah/needlehaystack/run.py"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(RUN.replace('"\\nThe best thing to see in Port Amsel is the made-up tower.\\n"', "None"))
    extract = mirror / "niah/EXTRACT.toml"
    extract.write_text(extract.read_text().replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))
    with pytest.raises(DataError, match=r"(?s)needle cannot be read.*run\.py.*None"):
        samples(mirror, (3000,))


def sample(*facts: str, question: str = "") -> Sample:
    return Sample(id="x", task="t", prompt=Prompt(segments=()), references=facts, meta={"question": question})


FACT = "eat a plum and sit by the weir"


@pytest.mark.parametrize(
    ("answer", "whole", "share"),
    [
        (FACT, 1.0, 1.0),
        ("You should EAT a plum,\nand sit by the weir!", 1.0, 1.0),
        ("sit by the weir and eat a plum", 0.0, 1.0),
        ("and sit in a", 0.0, 3 / 7),
        ("eat a plum and sit by the weirs", 0.0, 6 / 7),
        ("", 0.0, 0.0),
        ("What is best to do in Amsel?", 0.0, 0.0),
    ],
)
def test_by_hand(answer: str, whole: float, share: float) -> None:
    asked = sample(FACT, question="What is best to do in Amsel by day?")
    assert Contains().score(answer, asked).value == whole
    wanted = {"eat", "a", "plum", "and", "sit", "the", "weir"}
    assert WordRecall().score(answer, asked).value == pytest.approx(share)
    assert len(wanted) == 7


def test_several_facts_are_a_share() -> None:
    asked = sample("draw boats", "fly a kite")
    assert Contains().score("Fly a kite.", asked).value == 0.5
    assert WordRecall().score("Fly a boat.", asked).value == pytest.approx(1 / 3)


def test_the_judges_prompt_by_hand(mirror: Path) -> None:
    """The template filled all at once: what a value holds is never read as a field."""
    row = samples(mirror, (3000,), depths=1)[0]
    asked = Judge().score("It is {input}.", row)
    prompt = next(asked).prompt
    assert [(part.role, part.text) for part in prompt.segments] == [
        ("system", "Judge."),
        (
            "user",
            "By:\nfit: \n        Score 1: {none} of it.\n        Score 10: all of it.\n"
            "[Truth]\n\nThe best thing to see in Port Amsel is the made-up tower.\n\n"
            "[Question]\nWhat is the best thing to see in Port Amsel?\n[Answer]\nIt is {input}.\n[End]",
        ),
    ]
    with pytest.raises(StopIteration) as ended:
        asked.send(answer("Nearly. Rating: [[7]] of [[10]]"))
    assert ended.value.value.value == 7.0


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("[[1]]", 1),
        ("a\n[[10]]\nb", 10),
        ("[[3]] [[9]]", 3),
        ("7", None),
        ("[[0]]", None),
        ("[[11]]", None),
        ("[[ 7 ]]", None),
        ("[[7\n]]", None),
        ("[[rating]] [[7]]", None),
        ("", None),
    ],
)
def test_marks(reply: str, found: int | None) -> None:
    if found is None:
        with pytest.raises(ValueError, match="no mark from 1 to 10"):
            mark(reply)
    else:
        assert mark(reply) == found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evaluators/openai.py", "class OpenAIEvaluator:\n    CRITERIA = {}\n"),
        ("scoring/prompt.py", TEMPLATE.replace("{reference}", "")),
        ("scoring/prompt.py", TEMPLATE.replace('"human"', '"ai"')),
        ("scoring/prompt.py", TEMPLATE.replace("SCORING_TEMPLATE_WITH_REFERENCE", "OTHER")),
        ("scoring/prompt.py", TEMPLATE.replace("{prediction}", "{prediction}{prediction}")),
    ],
)
def test_a_judge_of_another_shape_is_refused(mirror: Path, name: str, text: str) -> None:
    (file,) = mirror.rglob(name)
    old = hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_text(text, "utf-8")
    folder = mirror / file.relative_to(mirror).parts[0]
    extract = folder / "EXTRACT.toml"
    extract.write_text(extract.read_text().replace(old, hashlib.sha256(text.encode()).hexdigest()))
    with pytest.raises(DataError, match=r"criteria|template"):
        samples(mirror, (3000,))


def test_the_table_says_that_a_judge_is_needed() -> None:
    row = Sample(id="x", task="official", prompt=Prompt(segments=()), references=(FACT,), level="1k", depth=0.5)
    scored = {"niah_judge": Scored(value=None), "niah_contains": Contains().score(FACT, row)}
    lines = Niah(NiahOptions()).aggregate([Graded(task="official", sample=row, repeat=0, scored=scored)])
    of_judge = [line for line in lines if line.metric == "niah_judge"]
    assert of_judge
    assert all(line.value is None and line.note == "needs judge" and line.missing == 1 for line in of_judge)


class Pieces(ToyTokenizer):
    """A token for a full stop and what follows it, as real vocabularies have some: such a stop ends no sentence."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [part for piece in text.replace(".\n", "\x01") for part in piece.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids).replace("\x01", ".\n")


def test_the_authors_depths_and_sentence_ends() -> None:
    """Depths are whole per cent; a needle goes behind the last token that is a full stop alone."""
    depths = [round(percent) / 100 for percent in spaced(0, 100, 35)]
    assert depths[:5] == [0.0, 0.03, 0.06, 0.09, 0.12] and depths[17] == 0.5 and depths[-1] == 1.0
    haystack = TokenHaystack(["One. Two.\nThree four five six seven."], Pieces(), 20)
    text, (start, end) = haystack.hide(34, 0, " X.", 60)
    assert text == "One. X. Two.\nThree four five six se" and text[start:end] == " X."
    assert haystack.hide(34, 0, " X.", 5)[0].startswith(" X.One."), "no stop before it: the start"
    assert haystack.hide(34, 0, " X.", 100)[0].endswith(" X.")
    with pytest.raises(ValueError, match="no token"):
        TokenHaystack([""], Pieces(), 20)


@pytest.mark.skipif(not DIGESTS.is_file(), reason=f"no recorded digests at {DIGESTS}")
def test_contexts_are_the_authors_byte_for_byte() -> None:
    """What their insert_needle made with the embedded model's tokenizer; the needle is the rows' reference."""
    catalog = installed()
    folder = catalog.load(catalog.models.get("loom-tiny"))()
    spec = catalog.servers.get("hf")
    options = spec.spec.options(), spec.spec.model_options()
    tokenizer = catalog.load(spec)(options[0]).describe(str(folder), options[1]).tokenizer
    rows = [row for row in json.loads(DIGESTS.read_text("utf-8")) if row["tokenizer"] == "loom-tiny tokenizer"]
    essays = [file.read_text("utf-8") for file in sorted((MIRROR / ESSAYS).glob("*.txt"))]
    haystack = TokenHaystack(essays, tokenizer, 16000)
    for row in rows:
        settings = row["settings"]
        text, _ = haystack.hide(settings["context_length"], 200, row["references"][0], settings["depth_percent"])
        assert hashlib.sha256(text.encode()).hexdigest() == row["sha256"], settings
    assert len(rows) >= 70


@given(st.text("ab' .,\n", max_size=30), st.text("ab ", min_size=1, max_size=10))
def test_containing_a_fact_means_full_recall(answer: str, fact: str) -> None:
    if contains(answer, fact):
        assert word_recall(answer, fact, "") == 1.0
    assert 0.0 <= word_recall(answer, fact, "") <= 1.0


@pytest.mark.skipif(not (MIRROR / "niah" / "original_results").is_dir(), reason=f"no upstream files at {MIRROR}")
def test_answers_the_authors_judge_gave_full_marks_have_high_recall() -> None:
    """The authors' own result records: what their judge scored 10 holds nearly every word of the needle."""
    for file in sorted((MIRROR / "niah" / "original_results").glob("*.json")):
        record = json.loads(file.read_text("utf-8"))
        if record.get("score") == 10:
            assert word_recall(record["model_response"], record["needle"], "") >= 0.8, file.name


def test_an_answer_cannot_set_its_own_mark() -> None:
    """Brackets in an answer are shown with a backslash, unless switched off; an answer without any as it is."""
    row = Sample(
        id="s",
        task="official",
        prompt=Prompt(segments=()),
        references=(),
        meta={"judge": [["system", "Rate.", None], ["human", "Answer: ", " End"]]},
    )
    for on, said, shown in ((True, "[[10]]", r"[\[10]\]"), (False, "[[10]]", "[[10]]"), (True, "a [1]", "a [1]")):
        turn = next(Judge(NiahJudgeOptions(defuse=on)).score(said, row))
        assert turn.prompt.text == f"Rate.Answer: {shown} End" and bool(turn.notes) == (shown != said)
