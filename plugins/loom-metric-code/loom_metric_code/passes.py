"""The metric: an answer's code with its prompt and tests as one program, run in a confined process, or not at all.

Source of the form: HumanEval (Chen et al. 2021, arXiv 2107.03374): prompt + completion + tests + `check(entry_point)`.
"""

from __future__ import annotations

import re

from loom_core.types import Sample, Scored
from loom_metric_code.plugin import CodeOptions
from loom_metric_code.process import Limits, Unconfined, run

OFF = "code is not run unless asked for: --metric-option code.run=true"
_FENCED = re.compile(r"```[A-Za-z]*\n(.*?)(?:```|\Z)", re.DOTALL)


def fenced(text: str) -> str:
    """The first fenced block of an answer; the answer itself without one."""
    found = _FENCED.search(text)
    return found[1] if found else text


def program(prediction: str, sample: Sample) -> str:
    """Prompt, code, tests and the call of the check, as HumanEval joins them. meta: see `CodePasses`."""
    meta = sample.meta
    code = fenced(prediction) if meta.get("code_fenced") else prediction
    call = f"check({meta['code_entry']})" if meta.get("code_entry") else ""
    return f"{meta.get('code_prompt', '')}{code}\n{meta['code_test']}\n{call}\n"


class CodePasses:
    """1 where the program runs to its end, 0 where it raises, is killed, or takes more than it may.

    meta: code_test (text; its asserts), and optional: code_entry (name that `check` is called with), code_prompt (text
    before the answer), code_fenced (True: the first fenced block is the code).
    """

    def __init__(self, options: CodeOptions | None = None) -> None:
        self._options = options or CodeOptions()

    def score(self, prediction: str, sample: Sample) -> Scored:
        """0 or 1; None where code is not to be run, or cannot be confined here."""
        options = self._options
        if not options.run:
            return Scored(value=None, detail={"error": OFF})
        limits = Limits(options.seconds, options.memory_mib << 20, options.confine)
        try:
            verdict = run(program(prediction, sample), limits)
        except Unconfined as error:
            hint = "" if options.confine == "audit" else "; --metric-option code.confine=audit is a weaker rule"
            return Scored(value=None, detail={"error": f"the code cannot be confined here: {error}{hint}"})
        return Scored(value=float(verdict.passed), detail={"verdict": verdict.why, "confined_by": options.confine})
