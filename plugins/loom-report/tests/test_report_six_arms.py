"""A report of six arms and six capabilities: what is in it, and the page in a real browser, on screen and on paper."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from loom_kit.runs import DENSE, Made, MadeArm, MadeTask, make_run
from loom_report import files as report_module
from loom_report.build import build
from loom_report.render import charts, svg, tables

from loom_core.api import Sample
from loom_core.run.store import RunFolder

CAPABILITIES = ("faithfulness", "general", "retrieval", "generation", "reasoning", "specialization")
RATES = {
    "dense": 0.9,
    "snapkv:budget=2x": 0.87,
    "snapkv:budget=8x": 0.7,
    "streamingllm:budget=4x": 0.4,
    "random:budget=4x": 0.3,
    "think:budget=4x": 0.8,
}
ARMS = [
    DENSE,
    MadeArm("snapkv:budget=2x", 0.5, query_aware=True),
    MadeArm("snapkv:budget=8x", 0.125, query_aware=True),
    MadeArm("streamingllm:budget=4x", 0.25),
    MadeArm("random:budget=4x", 0.25),
    MadeArm("think:budget=4x", 0.25, saves="simulated"),
]


def answer(sample: Sample, arm: MadeArm, repeat: int, _: random.Random) -> Made:
    luck = random.Random(f"{sample.id} {sample.task} {repeat}").random()
    right = luck < RATES[arm.name]
    return Made(text=f" {sample.references[0]}." if right else " no", values={"exact_match": float(right)})


def task_of(capability: str) -> MadeTask:
    answers = 2 if capability == "retrieval" else 1
    name = f"bench:{capability}"
    return MadeTask(name, {"1k": 64, "4k": 128}, (0.0, 1.0), 5, answers=answers, capability=capability)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    path = tmp_path_factory.mktemp("six") / "run"
    made = make_run(path, answer, tasks=[task_of(name) for name in CAPABILITIES], arms=ARMS)
    report_module.write(made)
    return made


def test_capabilities_are_means_within_the_metrics_range(folder: RunFolder) -> None:
    report, _ = build(folder)
    assert [row["capability"] for row in report["capabilities"]] == list(CAPABILITIES)
    totals = {(row["task"], row["arm"]): row["scores"][0]["score"] for row in report["totals"]}
    for row in report["capabilities"]:
        assert row["arms"] == {arm.name: totals[row["tasks"][0], arm.name] for arm in ARMS}


@pytest.mark.parametrize(("n", "drawn"), [(2, False), (3, True)])
def test_a_radar_needs_three_capabilities(tmp_path: Path, n: int, drawn: bool) -> None:
    folder = make_run(tmp_path / "run", answer, tasks=[task_of(name) for name in CAPABILITIES[:n]], arms=ARMS[:2])
    report, _ = build(folder)
    picture = charts.capabilities(report, svg.styles(report["arms"]))
    assert (picture is not None) is drawn
    if picture is not None:
        assert len(picture.table.rows) == 2


def test_an_arm_without_a_task_is_not_compared_on_its_capability(tmp_path: Path) -> None:
    def partly(sample: Sample, arm: MadeArm, repeat: int, generator: random.Random) -> Made | None:
        if arm.name != "dense" and sample.task == "bench:general":
            return None
        return answer(sample, arm, repeat, generator)

    tasks = [task_of(name) for name in CAPABILITIES[:3]]
    report, _ = build(make_run(tmp_path / "run", partly, tasks=tasks, arms=ARMS[:2]))
    by_name = {row["capability"]: row["arms"] for row in report["capabilities"]}
    assert by_name["general"]["snapkv:budget=2x"] is None
    picture = charts.capabilities(report, svg.styles(report["arms"]))
    assert picture is not None
    assert picture.image.count('class="l ') == 1, "a line is closed only where every spoke has a value"


def test_simulated_savings_are_hollow_and_never_ranked(folder: RunFolder) -> None:
    report, _ = build(folder)
    assert {row["arm"] for row in report["pareto"] if not row["ranked"]} == {"think:budget=4x"}
    assert not any(row["front"] for row in report["pareto"] if row["arm"] == "think:budget=4x")
    assert svg.styles(report["arms"])["think:budget=4x"].hollow


def test_the_task_by_method_table_has_differences_and_a_noise_floor(folder: RunFolder) -> None:
    report, _ = build(folder)
    drawn = tables.overview(report)
    assert drawn is not None
    assert list(drawn.heads) == ["arm", *CAPABILITIES]
    assert all("(" in cell.text for row in drawn.rows[1:] for cell in row[1:])
    noted = [note for task in report["tasks"] for note in tables.headline(report, task).notes if "noise" in note]
    assert len(noted) == 1 and noted[0].startswith("noise: 2 repeats of the baseline differ by")


def chromium(home: Path, *flags: str) -> tuple[str, list[str]]:
    """What the browser printed, and the lines of the page's console."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a Chromium")
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    more = ("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--hide-scrollbars")
    profile = f"--user-data-dir={home / f'profile-{len(list(home.iterdir()))}'}"
    command = [program, *fixed, *more, profile, "--virtual-time-budget=8000", *flags]
    done = subprocess.run(command, capture_output=True, timeout=180, check=True)
    lines = done.stderr.decode(errors="replace").splitlines()
    return done.stdout.decode("utf-8", "replace"), [line for line in lines if "CONSOLE" in line]


def test_the_page_renders_and_filters(folder: RunFolder, tmp_path: Path) -> None:
    address = folder.report_html.as_uri()
    dom, console = chromium(tmp_path, "--dump-dom", address)
    assert console == []
    # One radar; per task score by length, score by bytes, score by time, retention, and six heat maps.
    assert dom.count('class="chart"') == 1 + 6 * (4 + 6)
    assert dom.count("<figure>") == dom.count("<summary>numbers</summary>") + 1, "every picture has its table"
    assert "20 of 20 questions" in dom
    dom, console = chromium(tmp_path, "--dump-dom", address + "#task=bench:reasoning&filter=disagree")
    assert console == []
    found = re.search(r"(\d+) of 20 questions", dom)
    assert found and 0 < int(found[1]) < 20


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_drawn_in_both_themes(folder: RunFolder, tmp_path: Path, theme: str) -> None:
    target = tmp_path / "page.png"
    address = f"{folder.report_html.as_uri()}#theme={theme}"
    _, console = chromium(tmp_path, f"--screenshot={target}", "--window-size=1300,1800", address)
    assert console == []
    assert target.stat().st_size > 60_000


def test_it_prints(folder: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "page.pdf"
    chromium(tmp_path, f"--print-to-pdf={target}", folder.report_html.as_uri())
    content = target.read_bytes()
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") + content.count(b"/Type/Page\n") + len(_pages(content)) >= 4


def _pages(content: bytes) -> list[bytes]:
    """Page objects inside compressed object streams."""
    found = []
    for match in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", content, re.S):
        try:
            found += re.findall(rb"/Type\s*/Page\b", zlib.decompress(match[1]))
        except zlib.error:
            continue
    return found
