"""`loom parity` on a third party's benchmark and a toy of its authors' program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from loom_kit.upstream import put, sha256
from loom_parity import certificate

from loom_core.api import installed

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASK = "\ndef ask(motto):\n    return motto + '\\nWhose motto is it?'\n"
EXACT = "\ndef exact(answer, owner):\n    return 1.0 if answer.strip() == owner else 0.0\n"
HEAD = "import os, sys, time\nimport openai\nclient = openai.OpenAI()\nprint('loading', file=sys.stdout)\n"


@pytest.fixture
def site(toy_site: Path) -> Path:
    """The folder of the package `loom_bench_motto`, without a certificate."""
    package = toy_site / "loom_bench_motto"
    (package / "certificate.json").unlink(missing_ok=True)
    return package


def checkout(tmp_path: Path, *parts: str) -> Path:
    """A folder with the authors' one file."""
    put(tmp_path / "theirs", "motto/score.py", "".join((HEAD, *(parts or (ASK, EXACT)))).encode())
    return tmp_path / "theirs"


def compared(loom: Any, root: Path, *more: str, code: int = 0) -> dict[str, Any]:
    """The certificate that the command prints."""
    done = loom("parity", "motto", "--upstream", root, "--commit", COMMIT, "--format", "json", *more, code=code)
    made: dict[str, Any] = json.loads(done.out)
    return made


def test_equal_programs_get_a_certificate_that_list_and_info_show(loom: Any, site: Path, tmp_path: Path) -> None:
    root = checkout(tmp_path)
    assert "parity: none" in loom("info", "motto").out
    made = compared(loom, root, "--write")
    assert made == json.loads((site / "certificate.json").read_text("utf-8"))
    counts = {(row["kind"], row["name"]): row for row in made["counts"]}
    assert counts["prompt", "whose"]["compared"] == counts["prompt", "whose"]["equal"] == 3
    score = counts["score", "exact"]
    assert score["compared"] == score["equal"] > 100 and score["unexplained"] == score["crashed"] == 0
    assert made["upstream"]["files"] == {"motto/score.py": sha256((root / "motto/score.py").read_bytes())}
    assert (made["version"], made["metrics"], made["warnings"]) == ("1", {"fable_exact": "1"}, [])
    total = 3 + score["compared"]
    words = f"{total:,} of {total:,} equal at 0123456"
    assert f"parity: {words}" in loom("info", "motto").out
    assert f"[parity: {words}]" in loom("list", "benchmarks").out
    rows = json.loads(loom("list", "benchmarks", "--format", "json").out)
    assert next(row for row in rows if row["name"] == "motto")["parity"] == words
    again = compared(loom, root)
    assert again == made, "one seed, one certificate"
    assert compared(loom, root, "--seed", "1")["seed"] == 1
    limited = compared(loom, root, "--limit", "2")
    assert [row["compared"] for row in limited["counts"]] == [2, 2]


def test_nothing_compared_is_no_certificate(loom: Any, site: Path, tmp_path: Path) -> None:
    fails = (ASK.replace("return", "raise OSError #"), EXACT.replace("return", "raise OSError #"))
    done = loom("parity", "motto", "--upstream", checkout(tmp_path, *fails), "--commit", COMMIT, "--write", code=2)
    assert "no certificate is written" in done.err and "their code failed on each" in done.err
    assert not (site / "certificate.json").exists()


def test_a_certificate_of_another_version_is_stale(loom: Any, site: Path, tmp_path: Path) -> None:
    compared(loom, checkout(tmp_path), "--write")
    path = site / "certificate.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "version": "0"}), "utf-8")
    assert "parity: stale: made for version 0, this is 1" in loom("info", "motto").out
    assert "[parity: stale: made for version 0, this is 1]" in loom("list", "benchmarks").out
    path.write_text("{", "utf-8")
    assert "parity: unreadable" in loom("list").out


def test_differences_are_named_or_unexplained_and_no_text_is_kept(loom: Any, site: Path, tmp_path: Path) -> None:
    ask = ASK.replace("motto is it", "motto can it be")
    exact = EXACT.replace("answer.strip() == owner", "answer.strip().lower() == owner")
    root, out = checkout(tmp_path, ask, exact), tmp_path / "all.jsonl"
    done = loom("parity", "motto", "--upstream", root, "--commit", COMMIT, "--write", "--out", out, code=1)
    assert "Whose motto can it be?" in done.out and "unexplained: prompt whose 0" in done.out
    assert "difference case (" in done.out and "theirs ignores case" in done.out
    text = (site / "certificate.json").read_text("utf-8")
    assert "can it be" not in text and "swallow" not in text and "Upwards" not in text
    made = json.loads(text)
    assert [row["id"] for row in made["unexplained"]] == ["0", "1", "2"]
    assert set(made["unexplained"][0]["theirs"]) == {"sha256", "n"}
    assert [row["name"] for row in made["differences"]] == ["case"] and made["differences"][0]["n"] >= 3
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len(rows) == 3 + made["differences"][0]["n"]
    assert rows[0]["theirs"].endswith("Whose motto can it be?")


@pytest.mark.parametrize(
    ("body", "raises", "restarts"),
    [
        ("raise IndexError('no')", "IndexError", 0),
        ("sys.exit(3)", "SystemExit", 0),
        ("os._exit(7)", "exited with 7", 3),
        ("os.kill(os.getpid(), 9)", "died by signal 9", 3),
        ("time.sleep(60)", "no answer in 2 s", 3),
    ],
)
def test_what_their_code_fails_on_is_counted_apart(
    loom: Any, site: Path, tmp_path: Path, body: str, raises: str, restarts: int
) -> None:
    exact = (
        "\ndef exact(answer, owner):\n    if not answer:\n        "
        + body
        + EXACT.replace("\ndef exact(answer, owner):", "")
    )
    made = compared(loom, checkout(tmp_path, ASK, exact), "--timeout", "2")
    (row,) = made["crashes"]
    assert (row["raises"], row["n"], row["loom"]) == (raises, 3, [{"value": 0.0, "n": 3}])
    assert made["restarts"] == restarts
    score = next(one for one in made["counts"] if one["kind"] == "score")
    assert score["crashed"] == 3 and score["compared"] == score["equal"] > 100


def test_a_program_that_prints_and_reads_does_not_disturb(loom: Any, site: Path, tmp_path: Path) -> None:
    noisy = EXACT.replace(
        "return", "print('{\"value\": 9}'); os.write(1, b'x'); assert not sys.stdin.read()\n    return"
    )
    assert compared(loom, checkout(tmp_path, ASK, noisy))["crashes"] == []


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (("import fuzzy_no_such_module.inner\n",), "it needs the module fuzzy_no_such_module"),
        (("raise ValueError('set MOTTO_HOME')\n",), "ValueError: set MOTTO_HOME (motto/score.py:5)"),
        (("os._exit(4)\n",), "exited with 4"),
        ((EXACT,), "has no attribute 'ask'"),
    ],
)
def test_a_checkout_that_cannot_be_imported(loom: Any, site: Path, tmp_path: Path, parts: Any, told: str) -> None:
    done = loom("parity", "motto", "--upstream", checkout(tmp_path, *parts), code=1)
    assert told in done.err and "next:" in done.err


def test_folders_that_are_no_checkout(loom: Any, site: Path, tmp_path: Path) -> None:
    assert "it does not exist" in loom("parity", "motto", "--upstream", tmp_path / "nowhere", code=2).err
    (tmp_path / "empty").mkdir()
    done = loom("parity", "motto", "--upstream", tmp_path / "empty", code=2)
    assert "not a checkout of the authors' repository" in done.err and "motto/score.py is missing" in done.err
    file = put(tmp_path, "file", b"")
    assert "it is a file" in loom("parity", "motto", "--upstream", file, code=2).err
    assert "no adapter to its authors' program" in loom("parity", "fable", "--upstream", tmp_path, code=2).err
    assert "did you mean motto" in loom("parity", "moto", "--upstream", tmp_path, code=2).err
    root = checkout(tmp_path)
    assert "this Python cannot be started" in loom("parity", "motto", "--upstream", root, "--python", "/no", code=2).err


def test_another_commit_and_changed_files_are_warnings(loom: Any, site: Path, tmp_path: Path) -> None:
    root = checkout(tmp_path)
    done = loom("parity", "motto", "--upstream", root)
    assert "warning: the commit of the checkout is not known: give it with --commit" in done.out

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "all")
    found = git("rev-parse", "HEAD")
    done = loom("parity", "motto", "--upstream", root)
    assert f"the checkout is at {found[:10]}, loom's rules were read from 0123456789" in done.out
    assert f"equal at {found[:7]}" in done.out
    put(root, "motto/score.py", (root / "motto/score.py").read_bytes() + b"\n")
    assert "changed since that commit: motto/score.py" in loom("parity", "motto", "--upstream", root).out


def test_committed_certificates_are_fresh() -> None:
    """Every benchmark of this repository whose certificate is stored: made for the behaviour that is installed."""
    catalog = installed()
    metrics = {found.spec.name: found.spec.version for found in catalog.metrics}
    for found in catalog.benchmarks:
        if found.spec.parity and (made := certificate.read(found.spec)) is not None:
            assert certificate.stale(made, found.spec, metrics) == "", found.spec.name
            assert made.total("unexplained") == 0, found.spec.name
            assert made.upstream["commit"] == made.upstream["expected"], found.spec.name
