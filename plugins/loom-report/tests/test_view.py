"""`loom view`: every sample on demand, nothing but the run's own, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from loom_kit.runs import DENSE, HOSTILE, MadeArm, MadeTask, hostile, make_run, retrieves
from loom_report import files as report_module
from loom_report.render.live import HOST, Live, Server

from loom_core.api import RunError
from loom_core.run.store import RunFolder

SNAP = MadeArm("snapkv:budget=4x", 0.25, query_aware=True)
TASK = MadeTask(levels={"1k": 1024, "2k": 2048}, depths=(0.0, 0.5, 1.0), repeats=101)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """606 questions: more than report.html holds."""
    return make_run(
        tmp_path_factory.mktemp("view") / "run", retrieves({SNAP.name: 0.5}), tasks=[TASK], arms=[DENSE, SNAP]
    )


@pytest.fixture(scope="module")
def server(folder: RunFolder) -> Iterator[Server]:
    yield from served(folder)


def served(folder: RunFolder) -> Iterator[Server]:
    made = Server(Live(folder))
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(timeout=10)


def get(server: Server, path: str, host: str | None = None) -> tuple[int, str]:
    connection = HTTPConnection(HOST, server.server_port, timeout=30)
    connection.request("GET", path, headers={"Host": host or f"{HOST}:{server.server_port}"})
    response = connection.getresponse()
    return response.status, response.read().decode("utf-8")


def listed(server: Server, **more: str) -> list[dict[str, Any]]:
    query = "&".join(f"{key}={value}" for key, value in ({"task": "passkey:loom", "level": "2k"} | more).items())
    status, body = get(server, f"/samples.json?{query}")
    assert status == 200
    rows: list[dict[str, Any]] = json.loads(body)["samples"]
    return rows


def test_every_sample_is_listed_without_its_text(server: Server) -> None:
    rows = listed(server)
    assert len(rows) == 303
    assert rows[0]["disagree"] and not rows[-1]["wrong"]
    assert "pass key" not in json.dumps(rows)


def test_a_sample_comes_whole_with_its_evidence_marked(server: Server) -> None:
    row = listed(server)[0]
    sample = json.loads(get(server, f"/sample.json?number={row['number']}")[1])
    pieces = sample["segments"][1]["pieces"]
    assert [kind for kind, _ in pieces if kind != "text"] == ["mark"]
    assert sum(len(text) for _, text in pieces) == sample["segments"][1]["n"] > 5000
    assert [answer["right"] for answer in sample["answers"]] == [True, False]


def test_search_looks_into_answers_and_references(server: Server) -> None:
    sample = json.loads(get(server, f"/sample.json?number={listed(server)[0]['number']}")[1])
    reference = sample["references"][0][0][1]
    assert [row["id"] for row in listed(server, q=reference)] == [sample["id"]]
    assert listed(server, q="nothing+says+this") == []
    assert len(listed(server, q="could+NOT+find")) > 50


@pytest.mark.parametrize(
    "path",
    [
        "/plan.json",
        "/../plan.json",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/manifest.json",
        "//etc/passwd",
        "/contexts/",
        "/sample.json",
        "/sample.json?number=-1",
        "/sample.json?number=../plan.json",
        "/sample.json?number=99999999999999999999999999",
        "/sample.json?number=%D9%A3",
        "/samples.json/../plan.json",
        "/report.html",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    status, body = get(server, path)
    assert status == 404
    assert body in ("nothing is here", "there is no such question")


def test_unknown_places_are_empty(server: Server) -> None:
    assert listed(server, task="../..", level="%00") == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:1", ""])
def test_other_names_get_nothing(server: Server, host: str) -> None:
    assert get(server, "/", host or "nobody")[0] == 403


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    assert server.server_address[0] == HOST
    with socket.socket() as other:
        other.settimeout(0.5)
        assert other.connect_ex(("127.0.0.2", server.server_port)) != 0


def test_a_run_that_grows_is_read_again(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", retrieves({}), tasks=[MadeTask(levels={"1k": 32}, repeats=2)], arms=[DENSE])
    lines = folder.responses.read_text("ascii").splitlines(keepends=True)
    folder.responses.write_text("".join(lines[:4]) + lines[4][:30], "ascii")
    for server in served(folder):
        assert "6 of 10 planned answers are missing" in get(server, "/")[1]
        folder.responses.write_text("".join(lines), "ascii")
        assert "planned answers are missing" not in get(server, "/")[1]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to report"):
        Live(RunFolder(tmp_path))


def test_the_page_in_a_browser(server: Server, tmp_path: Path) -> None:
    dom, console = visit(server.address + "#level=2k&filter=wrong", tmp_path)
    assert console == []
    wrong = sum(row["wrong"] for row in listed(server))
    assert f"{wrong} of 303 questions" in dom
    assert "<mark>The pass key is " in dom
    assert 'class="cut"' not in dom


def test_hostile_answers_in_a_browser(tmp_path: Path) -> None:
    task = MadeTask(levels={"1k": 32}, depths=(0.5,), repeats=len(HOSTILE))
    folder = make_run(tmp_path / "run", hostile, tasks=[task], arms=[DENSE, SNAP])
    for server in served(folder):
        for number in (0, 1, 3):
            dom, console = visit(f"{server.address}#sample=1k-0.5-{number}", tmp_path)
            assert console == []
            assert "<title>run · loom</title>" in dom
            assert f"<h3>1k-0.5-{number}</h3>" in dom
            assert not re.search(r"<(img|iframe|textarea)", re.sub(r"<script.*?</script>", "", dom, flags=re.S))


def visit(address: str, home: Path) -> tuple[str, list[str]]:
    """The page's elements once its script has run, and what was said on its console."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs a Chromium")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    more = ("--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--v=0", "--dump-dom")
    profile = home / f"profile-{len(list(home.iterdir()))}"
    command = [program, *flags, *more, "--virtual-time-budget=8000", f"--user-data-dir={profile}", address]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    lines = done.stderr.decode(errors="replace").splitlines()
    dom = done.stdout.decode("utf-8", "replace")
    assert 'data-ready="true"' in dom
    return dom, [line for line in lines if "CONSOLE" in line]


def test_the_file_of_the_same_run_says_where_the_rest_is(folder: RunFolder) -> None:
    report_module.write(folder)
    assert "all of them: loom view" in folder.report_html.read_text("utf-8")
