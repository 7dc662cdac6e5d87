"""The authors' own functions, from a checkout of ZetangForward/L-CITEEVAL, for `loom parity`. Holds none of their code.

script/inference_1shot_vllm.py makes prompts; script/eval_citation.py scores citations; script/eval_correct.py has no
function that scores an answer, so its main part is run whole on a folder of one or more answers, `round` taken out.
Neither scorer can run as published: `low_bound`, `argx` and `level` are not defined. They are given from outside as
what they must mean (`lower_bound`, `args`, the key "hardness"). The entailment model is a rule that both sides share
(a claim holds where all its words are in the premise); sentences end at white space after a stop.

Runs in a process of its own: it changes the working folder and `sys.modules`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import re
import runpy
import sys
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from loom_parity import module, stand_ins

from loom_core.api import Json

PROMPTS, CITATIONS, CORRECT = "script/inference_1shot_vllm.py", "script/eval_citation.py", "script/eval_correct.py"
ABSENT = ("torch", "transformers", "requests", "tqdm", "yaml")
_WORD = re.compile(r"\w+")
_STOP = re.compile(r"(?<=[.!?])\s+")


def digest(text: str) -> str:
    """sha256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def authors(root: Path) -> Mapping[str, Callable[[Json], Json]]:
    """The functions by name; see each for its argument."""
    for name in ("nltk", "numpy", "rouge"):
        importlib.import_module(name)  # before stand-ins are there, which some of their dependencies would ask
    maker = module(root, PROMPTS, absent=ABSENT, name="lciteeval_inference")
    citation = module(root, CITATIONS, absent=ABSENT, name="lciteeval_citation")
    _prepare(citation)

    def prompt(payload: Json) -> Json:
        """{task, stem, record} to the digest of the prompt's one user turn."""
        file = json.loads((root / f"prompt/{payload['stem']}_default.json").read_text("utf-8"))
        return digest(maker.get_instruction_template(payload["task"], file, payload["record"], None))

    def cited(payload: Json) -> Json:
        """{generation, docs} to recall, precision, F1 and the number of citations; empty lists where left out."""
        item = {"generation": [payload["generation"]], "docs": payload["docs"]}
        return [list(part) for part in citation.compute_autoais([item], at_most_citations=3)]

    def known(payload: Json) -> Json:
        """{task, generation, docs, answer} to the same for niah and counting_stars."""
        function = {
            "niah": citation.compute_niah_citation,
            "counting_stars": citation.compute_counting_stars_citation,
        }[payload["task"]]
        item = {**payload, "generation": [payload["generation"]]}
        return [list(part) for part in function([item], at_most_citations=3)]

    def correct(payload: Json) -> Json:
        """{task, exp, rows: [{generation, answer, docs, length}]} to what eval_correct.py writes, not rounded."""
        return _correct(root, payload)

    def table(payload: Json) -> Json:
        """The same argument to what eval_citation.py writes: means of citations by bucket and in all."""
        return _cited_table(root, payload)

    return {"prompt": prompt, "cited": cited, "known": known, "correct": correct, "table": table}


def _prepare(citation: Any) -> None:
    """What the main part of eval_citation.py sets, and stand-ins for its model, its sentences and its progress."""
    citation.pipe, citation.tqdm, citation.sent_tokenize = _pipe, _quiet, _sentences
    citation.args = types.SimpleNamespace(file="1shot_model.json")


def _pipe(pairs: Json) -> Json:
    """The classifier: "entailment" where the claim has words, all of which stand in the premise."""
    [pair] = pairs
    claim, premise = (set(_WORD.findall(pair[name].lower())) for name in ("text_pair", "text"))
    return [{"label": "entailment" if claim and claim <= premise else "neutral"}]


def _sentences(text: str) -> list[str]:
    return [piece for piece in _STOP.split(text.strip()) if piece]


def _quiet(rows: Json, **_: Json) -> Json:
    return rows


class _LowerBound:
    """The name `low_bound`: whatever `lower_bound` of the running script is."""

    def __lt__(self, length: float) -> bool:
        return bool(sys._getframe(1).f_globals["lower_bound"] < length)


def _folder(payload: Json) -> tuple[list[Json], list[Json]]:
    """The answers and the records of a payload, as the scripts read them."""
    rows = payload["rows"]
    answers = [{"generation": [row["generation"]], "answer": row["answer"]} for row in rows]
    return answers, [{"docs": row["docs"], "length": row["length"]} for row in rows]


def _answer_file(payload: Json) -> str:
    return f"result/{payload['exp']}/{payload['task']}/1shot_model.json"


def _run(root: Path, script: str, payload: Json, arguments: list[str], names: Mapping[str, Json], output: str) -> Json:
    """Runs a script in a folder made for it, with further names defined; the JSON that it writes."""
    answers, records = _folder(payload)
    task, exp = payload["task"], payload["exp"]
    here, before = Path.cwd(), sys.argv
    with tempfile.TemporaryDirectory() as scratch:
        for path, content in (
            (_answer_file(payload), answers),
            (f"data/L-CiteEval/{exp}/{task}.json", records),
        ):
            (Path(scratch) / path).parent.mkdir(parents=True)
            (Path(scratch) / path).write_text(json.dumps(content), "utf-8")
        os.chdir(scratch)
        sys.argv = [script, "--task", task, "--exp", exp, *arguments]
        quiet = io.StringIO()
        try:
            with _stand_ins(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                runpy.run_path(str(root / script), init_globals=dict(names), run_name="__main__")
            return json.loads((Path(scratch) / f"result/{exp}/{task}/{output}").read_text("utf-8"))
        finally:
            os.chdir(here)
            sys.argv = before


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Stand-ins for what the scripts import: progress that is silent, a model and sentences by rule."""
    with stand_ins(("torch", "transformers")):
        nltk: Any = importlib.import_module("nltk")
        importlib.import_module("transformers").__dict__["pipeline"] = lambda *_, **__: _pipe
        kept = nltk.sent_tokenize
        nltk.sent_tokenize = _sentences
        try:
            yield
        finally:
            nltk.sent_tokenize = kept


def _correct(root: Path, payload: Json) -> Json:
    names = {"low_bound": _LowerBound(), "round": lambda value, digits: value}
    arguments = ["--model", "model", "--file", _answer_file(payload)]
    found = _run(root, CORRECT, payload, arguments, names, "correct_score_1shot_model.json")
    found = {name.replace("acc", "accuracy"): values for name, values in found.items()}
    return found if len(payload["rows"]) > 1 else {name: values["all"] for name, values in found.items()}


def _cited_table(root: Path, payload: Json) -> Json:
    rows = _run(root, CITATIONS, payload, ["--file", _answer_file(payload)], {}, "deberta_score_1shot_model.json")
    kept = ("citation_rec", "citation_prec", "citation_f1", "cite_num")
    return {str(row["length"]): [row[name] for name in kept] for row in rows}
