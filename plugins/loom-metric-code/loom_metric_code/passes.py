"""The metric: an answer's code judged by its tests, each in a confined process of its own, or not run at all.

Source of the form: HumanEval (Chen et al. 2021, arXiv 2107.03374): prompt + completion + tests + `check(entry_point)`.
"""

from __future__ import annotations

import re

from loom_core.api import Sample, Scored
from loom_metric_code.plugin import CodeOptions
from loom_metric_code.process import Limits, NotSplit, Program, Unconfined, run

OFF = "code is not run unless asked for: --metric-option code.run=true"
_FENCED = re.compile(r"```[A-Za-z]*\n(.*?)(?:```|\Z)", re.DOTALL)


def fenced(text: str) -> str:
    """The first fenced block of an answer; the answer itself without one."""
    found = _FENCED.search(text)
    return found[1] if found else text


def program(prediction: str, sample: Sample) -> Program:
    """An answer's code with its prompt, tests and entry. meta: see `CodePasses`."""
    meta = sample.meta
    code = fenced(prediction) if meta.get("code_fenced") else prediction
    entry, tests = str(meta.get("code_entry") or ""), str(meta["code_test"])
    if entry and not entry.isidentifier():
        raise ValueError(f"code_entry: expected a Python name, got {entry!r}")
    return Program(code, tests, str(meta.get("code_prompt") or ""), entry)


class CodePasses:
    """1 where the tests run to their end, 0 where they or the answer raise, are killed, or take more than they may.

    meta: code_test (text; its asserts), and optional: code_entry (name that `check` is called with), code_prompt (text
    before the answer), code_fenced (True: the first fenced block is the code).
    """

    def __init__(self, options: CodeOptions | None = None) -> None:
        self._options = options or CodeOptions()

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1; None where code is not to be run, cannot be confined here, or cannot be judged from outside."""
        options = self._options
        if not options.run:
            return Scored(value=None, detail={"error": OFF})
        limits = Limits(options.seconds, options.memory_mib << 20, options.confine)
        try:
            verdict = run(program(prediction, sample), limits)
        except Unconfined as error:
            hint = "" if options.confine == "audit" else "; --metric-option code.confine=audit is a weaker rule"
            return Scored(value=None, detail={"error": f"the code cannot be confined here: {error}{hint}"})
        except NotSplit as error:
            return Scored(value=None, detail={"error": f"the tests cannot run apart from the answer: {error}"})
        judged = "objects of the answer's classes" if verdict.objects else "data"
        confined = f"{options.confine}: {verdict.walls}" if verdict.walls else options.confine
        return Scored(
            value=float(verdict.passed), detail={"verdict": verdict.why, "confined_by": confined, "judged_on": judged}
        )
