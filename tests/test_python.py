"""loom from Python: runs, plans, run folders as rows; the page and the notebook run as they stand."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from loom_core import api
from loom_core.api import RunError, UsageError, open_run, plan, run

ROOT = Path(__file__).resolve().parents[1]
LINE: dict[str, Any] = {"model": "toy", "accel": ["fable_head", "fable_again"]}


@pytest.fixture
def here(tmp_path: Path, toy_plugin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, with the fable plugin in this process too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    api.installed.cache_clear()
    yield tmp_path
    api.installed.cache_clear()


def test_the_interface_is_what_type_checkers_read() -> None:
    """The table of names and the imports under TYPE_CHECKING of each lazy package are one."""
    for path in (ROOT / "loom_core" / "api" / "__init__.py", *ROOT.glob("plugins/*/loom_*/__init__.py")):
        text = path.read_text("utf-8")
        if "lazily(" not in text:
            continue
        module = importlib.import_module(".".join(path.relative_to(ROOT).parts[-3 if "api" in path.parts else -2 : -1]))
        read = set(re.findall(r"(\w+) as \1\b", text.split("if TYPE_CHECKING:")[1]))
        assert read == set(module.__all__) - {"API"}, path
        assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_plan_and_a_run(here: Path) -> None:
    assert plan("fable@n=3:tell", **LINE)["n_jobs"] == 9 and not (here / "runs").exists()
    done = run("fable@n=3:tell", executor="inline", out="made", **LINE)
    assert (done.path, done.arms) == (Path("made"), ("dense", "fable_head", "fable_again"))
    again = open_run("made")
    assert [answer.key for answer in again.answers()] == [job.key for job in again.jobs()]
    assert all(answer.state == "answered" and answer.text is not None for answer in again.answers())
    means = {(mean.arm, mean.metric): mean for mean in again.means()}
    total = [row for row in done.report["totals"] if row["arm"] == "dense"] if done.report else []
    assert means["dense", "fable_exact"].value == total[0]["scores"][0]["score"]
    rows = again.rows()
    assert len(rows) == 9 and {"task", "sample", "arm", "fable_exact"} <= rows[0].keys() and "scores" not in rows[0]
    sample = again.sample(rows[0]["task"], rows[0]["sample"])
    assert sample.references and "".join(segment.text for segment in sample.prompt.segments)


def test_a_run_in_a_thread_of_ones_own(here: Path) -> None:
    """Where Python delivers no signals: as in a server."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(run, "fable@n=2:tell", executor="inline", out="threaded", **LINE).result(timeout=120)
    assert [answer.state for answer in done.answers()] == ["answered"] * 6


def test_what_is_missing_is_told(here: Path) -> None:
    done = run(
        "fable@n=20:tell", server="double", server_options={"errors": 0.5}, executor="inline", out="half", **LINE
    )
    states = [answer.state for answer in done.answers()]
    assert {"answered", "error"} <= set(states)
    broken = next(answer for answer in done.answers() if answer.state == "error")
    assert broken.error and broken.text is None and broken.seconds is None and not broken.scores
    for mean in done.means():
        assert mean.n <= mean.n_planned == 20


def test_bad_input(here: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        open_run("nowhere")
    with pytest.raises(UsageError, match="modle"):
        run("fable", modle="toy")
    with pytest.raises(UsageError, match="unknown benchmark"):
        plan("fabel", model="toy")


def blocks() -> list[str]:
    """The Python of docs/python.md."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text("utf-8"), flags=re.S)


def cells() -> list[str]:
    """The code of the notebook."""
    book = json.loads((ROOT / "examples" / "read_a_run.ipynb").read_text("utf-8"))
    assert all(not cell.get("outputs") for cell in book["cells"]), "a notebook is committed without outputs"
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("code", [blocks, cells], ids=["page", "notebook"])
def test_the_page_and_the_notebook_run(code: Any, tmp_path: Path) -> None:
    for module in ("pandas", "torch", "loom_server_hf", "loom_model_tiny", "loom_accel_snapkv", "loom_report"):
        pytest.importorskip(module)
    environment = {**os.environ, "LOOM_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code())],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and "snapkv" in done.stdout, done.stderr[-3000:]
