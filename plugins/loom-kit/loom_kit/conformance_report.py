"""What every report format must fulfil: text from any report.json, whatever state its run is in.

The documents are made of made-up run folders, by the code that makes real ones. Knows no format.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from loom_report.build import build

from loom_core.contract.specs import ReportSpec
from loom_core.contract.types import Json
from loom_kit.rows import Row, attempt, reason
from loom_kit.runs import DENSE, Answerer, Made, MadeArm, MadeTask, hostile, make_run, retrieves

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
TASK = MadeTask(levels={"1k": 1024, "2k": 2048}, repeats=1, depths=(0.0, 1.0))
GONE = MadeTask("passkey:gone", unavailable="its file is not at hand")


@cache
def examples() -> Mapping[str, Any]:
    """report.json documents by the state of their run."""
    right = retrieves({SNAP.name: 0.5})
    half: Answerer = lambda sample, arm, repeat, chance: None if arm is SNAP else right(sample, arm, repeat, chance)  # noqa: E731
    runs: dict[str, tuple[Answerer, list[MadeTask], bool]] = {
        "complete": (right, [TASK], True),
        "partial": (half, [TASK], True),
        "nothing answered": (lambda *_: None, [TASK], True),
        "every answer failed": (lambda *_: Made(error="the server is gone"), [TASK], True),
        "not scored": (right, [TASK], False),
        "a refused task": (right, [TASK, GONE], True),
        "only refused tasks": (right, [GONE], True),
        "answers of all sorts": (hostile, [MadeTask(levels={"1k": 1024}, repeats=8, depths=(None,))], True),
    }
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (state, (answerer, tasks, scored)) in enumerate(runs.items()):
            run = make_run(Path(folder) / str(number), answerer, tasks=tasks, arms=[DENSE, SNAP], scored=scored)
            made[state] = build(run)[0]
    return made


def check_report(spec: ReportSpec, write: Callable[[Mapping[str, Any]], Any]) -> Iterator[Row]:
    """One row for each state of a run. write: the format, from report.json's dict to text."""
    for state, document in examples().items():
        yield attempt(spec.name, f"writes a report ({state})", partial(_written, write, document))


def _written(write: Callable[[Mapping[str, Any]], Any], document: dict[str, Json]) -> None:
    given = copy.deepcopy(document)
    try:
        text = write(given)
    except Exception as error:
        why = f"raised {reason(error)}: not every run has every part of report.json"
        raise AssertionError(why) from error
    assert isinstance(text, str), f"returned a {type(text).__name__}, not text"
    assert text.strip(), "the text is empty: say at least that there is nothing to report"
    assert "\x1b" not in text, "the text holds terminal escapes: leave out control characters, answers may hold them"
    alone = text.encode("utf-8", "replace").decode("utf-8") == text
    assert alone, "the text holds a lone surrogate, which no file can hold: answers may have some"
    assert given == document, "the document is altered: other formats read the same one"
    assert write(copy.deepcopy(document)) == text, "the same report is written otherwise the second time"
