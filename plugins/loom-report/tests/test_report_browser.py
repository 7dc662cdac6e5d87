"""The page in a real headless browser: it renders, says nothing on the console, filters, and runs nothing foreign."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from loom_kit.runs import DENSE, HOSTILE, MadeArm, MadeTask, hostile, make_run, retrieves
from loom_report import files as report_module

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=5000",
)
SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
STREAM = MadeArm("streamingllm:budget=4x", 0.25)


@dataclass
class Browser:
    """Chromium's command line, a fresh profile for every page."""

    program: str
    home: Path

    def visit(self, page: Path, hash_: str, *flags: str) -> tuple[str, list[str]]:
        """(what it printed, the lines of the page's console)."""
        profile = self.home / f"profile-{len(list(self.home.iterdir()))}"
        command = [self.program, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri() + hash_]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        shutil.rmtree(profile, ignore_errors=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
        lines = done.stderr.decode(errors="replace").splitlines()
        return done.stdout.decode("utf-8", "replace"), [line for line in lines if "CONSOLE" in line]

    def dom(self, page: Path, hash_: str = "") -> str:
        """The page's elements once its script has run; nothing may have been said on the console."""
        found, console = self.visit(page, hash_, "--dump-dom")
        assert console == []
        assert 'data-ready="true"' in found
        return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Browser:
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a Chromium: none of {', '.join(NAMES)} is installed")
    return Browser(program, tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 questions on each of two lengths; dense is right on all, snapkv on about 60 %, streamingllm on about 20 %."""
    arms = [DENSE, SNAP, STREAM]
    folder = make_run(tmp_path_factory.mktemp("page") / "run", retrieves({SNAP.name: 0.6, STREAM.name: 0.2}), arms=arms)
    report_module.write(folder)
    return folder.report_html


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = MadeTask(levels={"1k": 32}, depths=(0.5,), repeats=len(HOSTILE))
    folder = make_run(tmp_path_factory.mktemp("hostile") / "run", hostile, tasks=[task], arms=[DENSE, SNAP])
    report_module.write(folder)
    return folder.report_html


def listed(dom: str) -> list[str]:
    return re.findall(r'<button type="button" data-index="\d+"[^>]*><span class="id">([^<]*)</span>', dom)


def pressed(dom: str) -> str:
    found = re.search(r'data-filter="(\w+)" aria-pressed="true"', dom)
    assert found
    return found[1]


def test_it_renders(browser: Browser, page: Path) -> None:
    dom = browser.dom(page)
    assert "<title>run · loom</title>" in dom
    assert dom.count('class="chart"') == 3 + 3
    assert len(listed(dom)) == 90
    assert "90 of 90 questions" in dom
    assert pressed(dom) == "all"
    assert '<article id="sample" tabindex="-1"><h3>' in dom
    assert re.search(r"<mark>The pass key is \d{7}\. Remember it\. </mark>", dom)


@pytest.mark.parametrize("arm", ["", SNAP.name, STREAM.name])
def test_filters_split_the_samples(browser: Browser, page: Path, arm: str) -> None:
    chosen = f"&arm={arm}" if arm else ""
    wrong, right = (set(listed(browser.dom(page, f"#filter={name}{chosen}"))) for name in ("wrong", "right"))
    assert wrong
    assert right
    assert not wrong & right
    assert len(wrong | right) == 90
    if arm == STREAM.name:
        disagree = browser.dom(page, "#filter=disagree")
        assert pressed(disagree) == "disagree"
        assert set(listed(disagree)) == wrong


def test_search_level_and_sample_are_honoured(browser: Browser, page: Path) -> None:
    dom = browser.dom(page, "#level=2k&q=2k-0.5-&sample=2k-0.5-3")
    assert sorted(listed(dom)) == [f"2k-0.5-{i}" for i in range(6)]
    assert "<h3>2k-0.5-3</h3>" in dom
    assert "0 of 90 questions" in browser.dom(page, "#q=nothing+says+this")


def test_wrong_addresses_do_no_harm(browser: Browser, page: Path) -> None:
    dom = browser.dom(page, "#filter=<img>&task=no&level=%22%3E&arm=__proto__&theme=x&sample=constructor")
    assert len(listed(dom)) == 90
    assert pressed(dom) == "all"


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_answer_does_nothing(browser: Browser, hostile_page: Path, number: int) -> None:
    dom = browser.dom(hostile_page, f"#sample=1k-0.5-{number}")
    assert f"<h3>1k-0.5-{number}</h3>" in dom
    assert "<title>run · loom</title>" in dom
    names = {
        name.lower() for name in re.findall(r"<([a-zA-Z][\w-]*)", re.sub(r"<script.*?</script>", "", dom, flags=re.S))
    }
    assert not names & {"img", "iframe", "textarea", "embed", "object", "link"}
    assert not re.search(r'href="(?!#)', dom)
    shown = html.unescape(" ".join(re.findall(r'<div class="text"[^>]*>(.*?)</div>', dom, re.S)))
    if number in (0, 1, 2, 3, 5):
        assert HOSTILE[number] in shown
    if number == 4:
        assert "⟨U+202E⟩evil⟨U+202C⟩" in shown
        assert "⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31mred" in shown
    if number == 6:
        assert "996,005 characters not shown" in dom
        assert len(dom) < 400_000


def test_this_would_notice(browser: Browser, tmp_path: Path) -> None:
    """The same look at a page that does run what it was given: the title changes, the console speaks."""
    bad = tmp_path / "bad.html"
    bad.write_text(f"<title>run · loom</title>{HOSTILE[0]}<script>undefined_name()</script>", "utf-8")
    dom, console = browser.visit(bad, "", "--dump-dom")
    assert "<title>pwned</title>" in dom
    assert any("undefined_name" in line for line in console)


def test_light_and_dark_are_drawn(browser: Browser, page: Path, tmp_path: Path) -> None:
    pictures = []
    for theme in ("light", "dark"):
        target = tmp_path / f"{theme}.png"
        _, console = browser.visit(page, f"#theme={theme}", f"--screenshot={target}", "--window-size=1300,2000")
        assert console == []
        pictures.append(target.read_bytes())
        assert len(pictures[-1]) > 60_000
    assert pictures[0] != pictures[1]
