"""The authors' own functions, run from a checkout of OpenLMLab/LEval for `loom parity`. Holds none of their code.

Evaluation/auto_eval.py scores and prints tables; Baselines/turbo16k-test.py makes prompts. Both are executed unchanged:
`datasets` is replaced by a class that hands `compute` on, the endpoint by one that notes its messages, the pool of
processes by a loop, and the splitter of sentences (for ROUGE-Lsum, which is in no score) by none. Tokens, of which only
the number decides where a document is cut, are counted by a rule that both sides share. Runs in a process of its own:
it changes the working folder and `sys.modules`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import runpy
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from loom_parity import module, stand_ins

from loom_bench_leval.plugin import EXAM
from loom_core.api import Json

SCORER, SCRIPT = "Evaluation/auto_eval.py", "Baselines/turbo16k-test.py"
UNCUT = 10**9
_TOKEN = re.compile(r"\w+|[^\w\s]|\s")


def count_tokens(text: str) -> int:
    """Words, other signs and white space, each one token."""
    return len(_TOKEN.findall(text))


def digest(messages: Sequence[Mapping[str, str]]) -> str:
    """sha256 of messages: their roles and contents."""
    rows = [[row["role"], row["content"]] for row in messages]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def authors(root: Path) -> Mapping[str, Callable[[Json], Json]]:
    """The functions by name; see each for its argument."""
    _datasets()
    scorer = module(root, SCORER, name="leval_auto_eval")
    rouge, f1, em = (sys.modules[name] for name in ("rouge", "f1", "em"))
    rouge.Pool = _Pool  # type: ignore[attr-defined]
    # Sentences make ROUGE-Lsum alone, which is in no score; their splitter's data need not be installed.
    rouge.nltk = types.SimpleNamespace(sent_tokenize=lambda text: [text])  # type: ignore[attr-defined]
    asked = _Prompts(root)

    def exam(payload: Json) -> Json:
        """{task, prediction, reference} to the score, of sci_fi to both."""
        with contextlib.redirect_stdout(io.StringIO()):
            pairs = _cleaned(scorer, str(payload["task"]), payload["prediction"], payload["reference"])
            found = [em.compute_exact_match([left], [[right]]) for left, right in pairs]
        return found if len(found) > 1 else found[0]

    def question(payload: Json) -> Json:
        """{prediction, reference} to the F1."""
        return f1.compute_f1([payload["prediction"]], [[payload["reference"]]])

    def summary(payload: Json) -> Json:
        """{prediction, reference} to ROUGE-1, -2, -L and their geometric mean, as they are rounded."""
        made = scorer.LEvalMetrics(config_name="rouge")
        found = made.compute(predictions=[payload["prediction"]], references=[[payload["reference"]]])
        return [found[f"rouge/{part}"] for part in ("rouge1", "rouge2", "rougeL", "geometric_mean")]

    def table(payload: Json) -> Json:
        """{file} to every number that auto_eval.py prints for that file of the checkout."""
        return _printed(root, str(payload["file"]))

    return {"exam": exam, "f1": question, "rouge": summary, "table": table, "prompt": asked.digests}


class _Pool:
    """In place of a pool of processes."""

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @staticmethod
    def starmap(function: Callable[..., Any], rows: Iterator[Sequence[Any]]) -> list[Any]:
        return [function(*row) for row in rows]


def _datasets() -> None:
    """A module `datasets` with what auto_eval.py takes from it: a base class whose `compute` is `_compute`."""

    class Metric:
        def __init__(self, config_name: str) -> None:
            self.config_name = config_name

        def compute(self, *, predictions: Json, references: Json) -> Json:
            return self._compute(predictions, references)  # type: ignore[attr-defined]

    made = types.ModuleType("datasets")
    made.Metric, made.load_dataset = Metric, None  # type: ignore[attr-defined]
    sys.modules["datasets"] = made


def _cleaned(scorer: Any, task: str, prediction: str, reference: str) -> list[tuple[str, str]]:
    """(prediction, reference) as auto_eval.py's main part cleans them before they are matched."""
    scorer.args = types.SimpleNamespace(pred_file=f"{task}.pred.jsonl")
    if task in ("coursera", "quality", "tpo"):
        return [(scorer.process_output_mc(prediction), scorer.process_gt_mc(reference))]
    if task == "gsm100":
        return [(scorer.process_math(prediction), scorer.process_math(reference))]
    if task == "codeU":
        return [(scorer.process_output_code(prediction, reference), scorer.process_gt_code(reference))]
    if task == "sci_fi":
        wanted = scorer.process_gt_judge(reference)
        return list(zip(scorer.process_output_judge(prediction), wanted, strict=True))
    return [(prediction, reference)]


def _printed(root: Path, file: str) -> Json:
    """Runs the whole of auto_eval.py on a file; the numbers of its last lines, in their order."""
    shown, arguments = io.StringIO(), sys.argv
    sys.argv = [SCORER, "--pred_file", str(root / file)]
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_path(str(root / SCORER), run_name="__main__")
    finally:
        sys.argv = arguments
    numbers: list[float] = []
    for line in shown.getvalue().splitlines():
        if "LEval_score" in line:
            found = ast.literal_eval(line[line.index("{") : line.rindex("}") + 1])
            numbers += (
                [*found["display"], found["LEval_score"]] if len(found["display"]) > 1 else [found["LEval_score"]]
            )
        elif line.startswith("average score"):
            numbers.append(float(line.rpartition(":")[2]))
    return numbers


class _Prompts:
    """The messages that the script sends, as digests; each task is asked once for each length."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._kept: dict[tuple[str, int], dict[str, list[str]]] = {}

    def digests(self, payload: Json) -> Json:
        """{task, record, question, max_length} to the digests of the calls of that question."""
        place = (str(payload["task"]), int(payload["max_length"] or UNCUT))
        if place not in self._kept:
            self._kept = {place: self._asked(*place)}
        return self._kept[place][f"{payload['record']}-{payload['question']}"]

    def _asked(self, task: str, max_length: int) -> dict[str, list[str]]:
        folder = "Closed" if task in EXAM else "Open"
        text = (self._root / f"LEval-data/{folder}-ended-tasks/{task}.jsonl").read_text("utf-8")
        rows = [(i, json.loads(line)) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
        rows = [(i, row) for i, row in rows if row["evaluation"] not in ("LLM", "human")]
        calls: list[str] = []
        script = module(self._root, SCRIPT, absent=("openai", "tiktoken"), name="leval_turbo16k")
        self._set(script, task, [row for _, row in rows], max_length, calls)
        here = Path.cwd()
        with tempfile.TemporaryDirectory() as scratch, stand_ins(()):
            os.chdir(scratch)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    script.main()
            finally:
                os.chdir(here)
        names = [f"{i}-{n}" for i, row in rows for n in range(1, len(row["instructions"]) + 1)]
        of_each = len(calls) // len(names)
        return {name: calls[of_each * at : of_each * (at + 1)] for at, name in enumerate(names)}

    @staticmethod
    def _set(script: Any, task: str, data: Json, max_length: int, calls: list[str]) -> None:
        """What the script's command line and its endpoint would have set."""

        def create(**request: Any) -> Json:
            calls.append(digest(request["messages"]))
            return {"choices": [{"message": {"content": "True"}}]}

        script.openai = types.SimpleNamespace(ChatCompletion=types.SimpleNamespace(create=create))
        script.time = types.SimpleNamespace(sleep=lambda seconds: None)
        script.input = lambda *_: ""
        script.num_tokens_from_string = lambda text, name: count_tokens(text)
        script.args = types.SimpleNamespace(metric="exam_eval" if task in EXAM else "ngram_eval")
        script.max_length = max_length - script.max_new_tokens
        script.openai_model, script.key_data_pairs = "model", {f"{task}.pred.jsonl": data}
