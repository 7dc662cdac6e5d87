"""The records of a run folder are typed: misspelt fields are type errors, and the types are what runs really write."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from loom_core.contract import records

ROOT = Path(__file__).resolve().parents[1]
PLANTED = """
from loom_core.api import open_run, plan
from loom_core.contract.records import Manifest, Plan, ResponseRecord, ScoreRecord
from loom_report.build import build
from loom_report.records import Report
from loom_core.run.store import RunFolder

def misspelt(made: Plan, manifest: Manifest, call: ResponseRecord, score: ScoreRecord, folder: RunFolder) -> None:
    report, _ = build(folder)
    report["totalz"]
    report["tasks"][0]["metricz"]
    report["totals"][0]["scores"][0]["scor"]
    report["state"]["n_anwsered"]
    made["taskz"]
    made["model"]["windw"]
    manifest["versionz"]
    call["txt"]
    call["timing"]["startd"]
    score["valu"]
    open_run("x").plan["arm"]
    plan("x")["n_job"]
"""


def test_misspelt_fields_are_type_errors(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    file = tmp_path / "planted.py"
    file.write_text(PLANTED, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path), str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if "has no key" in line]
    expected = sum('["' in line for line in PLANTED.splitlines())
    assert len(found) == expected, done.stdout


def differs(value: Any, kind: Any, path: str) -> list[str]:
    """Where a value is not what a type says: fields too many, too few, or of another kind. Names only."""
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return [f"{path}: not an object"]
        hints = typing.get_type_hints(kind)
        found = [f"{path}.{name}: not in the type" for name in value if name not in hints]
        marked = typing.get_type_hints(kind, include_extras=True)
        needed = [name for name in marked if typing.get_origin(marked[name]) is not typing.NotRequired]
        found += [f"{path}.{name}: missing" for name in needed if name not in value]
        return found + [
            one for name in hints if name in value for one in differs(value[name], hints[name], f"{path}.{name}")
        ]
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is list and isinstance(value, list):
        return [one for item in value for one in differs(item, inner[0], f"{path}[]")]
    if inner and origin is not list and not isinstance(value, dict):  # a union, or a mapping
        return [] if value is None or any(not differs(value, one, path) for one in inner) else [f"{path}: {value!r}"]
    plain = {str: (str,), int: (int,), float: (int, float), bool: (bool,)}.get(kind)
    return [f"{path}: {value!r} is not {kind.__name__}"] if plain and not isinstance(value, plain) else []


def test_the_types_are_what_runs_write(loom: Any) -> None:
    report_types = pytest.importorskip("loom_report.records")
    loom("run", "fable@n=3,turns=2", "--model", "toy", "--accel", "fable_head", "--out", "made", "--quiet")
    folder = loom.cwd / "made"
    for name, kind in (("plan", records.Plan), ("manifest", records.Manifest), ("report", report_types.Report)):
        assert differs(json.loads((folder / f"{name}.json").read_text("utf-8")), kind, name) == []
    for record in loom.records(folder):
        assert differs(record, records.ResponseRecord, "response") == []
    for score in loom.scores("fable_exact@1", folder):
        assert differs(score, records.ScoreRecord, "score") == []
