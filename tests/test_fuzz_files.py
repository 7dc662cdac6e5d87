"""Files that users and strangers hand over, mutated: configs of runs and studies, described benchmarks and their
records, pins, and whole run folders and bundles through the commands that continue, score and repeat them. Never a
traceback, never exit code 0 with nothing done.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import ODD, SEED, ask, looked_up_once, mutate, mutated, quick

from loom_core.api import LoomError
from loom_core.data.pins import read_pins

N_CONFIGS, N_PINS, N_FOLDERS, N_BUNDLES = 500, 200, 120, 60
TASK = {
    "records": "rows.jsonl",
    "prompt": "Read.\n{text}\nQ: {asked}\nA:",
    "context": ["text"],
    "question": ["asked"],
    "references": "answers",
    "metrics": ["passkey_exact"],
    "max_tokens": 8,
    "id": "number",
    "level": "pages",
    "meta": ["pages"],
    "stop": ["\n"],
    "truncation": {"scope": "context", "side": "middle", "limit": 100},
}
DESCRIBED = {
    "benchmark": {"name": "mine", "version": "1", "summary": "x", "capability": "retrieval", "licence": "CC0-1.0"},
    "tasks": {"ask": TASK},
    "table": [{"name": "all", "average": "macro", "over": ["task", "level"], "scale": 100, "digits": 1}],
}
RECORDS = [
    {"number": f"r{i}", "text": "a b c", "asked": "which?", "answers": ["b", "c"], "pages": "1"} for i in range(3)
]
RUN = {
    "benchmarks": ["passkey@words=8,depths=2,repeats=1"],
    "model": "toy",
    "server": "double",
    "accel": ["truncate:budget=256"],
    "server_options": {"answers": "echo"},
    "model_options": {"window": 4096},
    "metric_options": {},
    "templates": {},
    "lengths": [],
    "limit": 2,
    "seed": 1,
    "repeats": 1,
    "overlength": "skip",
    "protocol": "query-aware",
    "thinking": "<think>,</think>",
    "offline": True,
}
STUDY = {**RUN, "systems": {"one": {"server_options": {"answers": "null"}}, "two": {"limit": 1}}, "out": "study"}
PINS = {
    "bench": {
        "repo": "o/r",
        "commit": "c0ffee",
        "licence": "MIT",
        "files": [{"path": "a.txt", "sha256": "", "bytes": 1, "git_blob": "", "places": ["x"]},
                  {"path": "z.zip#m", "sha256": "", "bytes": -1}],
        "archives": [{"path": "z.zip", "sha256": "", "bytes": 3}],
    },
    "hub": {"dataset": "d/s", "revision": "main", "files": [{"path": "b", "sha256": "0" * 64, "bytes": 5}]},
}  # fmt: skip


def toml(value: Any) -> str:
    """A value as TOML has it, inline; what TOML has not (null, a number too large) as a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)) and abs(value) < 10**30:
        return repr(value)
    return json.dumps(value) if isinstance(value, str) else '"null"' if value is None else "9" * 400


def file_of(value: Any, random_: random.Random) -> bytes:
    """A TOML file of a value, sometimes broken as text."""
    rows = value.items() if isinstance(value, dict) else [("x", value)]
    text = "".join(f"{json.dumps(key)} = {toml(item)}\n" for key, item in rows).encode("utf-8", "surrogatepass")
    if random_.random() < 0.12:
        at = random_.randrange(len(text) + 1)
        text = random_.choice(
            (text[:at], text[:at] + b"\xff" + text[at:], text + b"[", b"[" * 50_000, b"", b"\xef\xbb\xbf" + text)
        )
    return text


def spoilt(value: Any, random_: random.Random) -> Any:
    """The value with a place changed, or now and then as it is."""
    return value if random_.random() < 0.05 else mutated(value, random_)


def records(random_: random.Random) -> bytes:
    """Records of a described benchmark, one of them changed, or none at all."""
    rows = [spoilt(row, random_) if random_.random() < 0.4 else row for row in RECORDS]
    text = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    how = random_.random()
    if how < 0.1:
        return random_.choice((b"", b"\n\n", b"[]", b"\xff\xfe{", b"{" * 50_000, text[:-9], text * 2, b"null\n" + text))
    return text


def told(what: str, code: int, said: str) -> None:
    assert code in (0, 1, 2, 3), f"{what}: exit code {code}"
    assert code != 0 or said.strip(), f"{what} said nothing and did nothing"


def asked(what: str, *arguments: str) -> tuple[int, str]:
    try:
        code, said = ask(*arguments)
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}: loom {arguments} (seed {SEED}): {what}") from error
    told(f"loom {arguments}, {what} (seed {SEED})", code, said)
    return code, said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, offline."""
    monkeypatch.setenv("LOOM_DATA", "")
    monkeypatch.setenv("LOOM_OFFLINE", "1")
    monkeypatch.setenv("LOOM_CACHE", str(tmp_path / "cache"))
    quick(monkeypatch)
    looked_up_once(monkeypatch)
    return tmp_path


def test_mutated_configs_and_records_end_in_a_message_or_a_plan(here: Path) -> None:
    random_, ends = random.Random(f"{SEED} configs"), [0, 0]
    with chdir(here):
        for number in range(N_CONFIGS):
            kind = ("described", "run", "study", "records")[number % 4]
            made = {"described": DESCRIBED, "records": DESCRIBED, "run": RUN, "study": STUDY}[kind]
            text = file_of(made if kind == "records" else spoilt(made, random_), random_)
            rows = records(random_) if kind == "records" else b"".join(json.dumps(r).encode() + b"\n" for r in RECORDS)
            Path("x.toml").write_bytes(text)
            Path("rows.jsonl").write_bytes(rows)
            model = ("--model", "toy") if kind in ("described", "records") else ()
            what = f"x.toml {text[:3000]!r}, rows.jsonl {rows[:600]!r}"
            code, _ = asked(what, "plan", "./x.toml", *model)
            ends[code != 0] += 1
    assert min(ends) > N_CONFIGS // 20, "both ends are met"


def test_mutated_pins_end_in_a_message_or_pins(tmp_path: Path) -> None:
    random_, path = random.Random(f"{SEED} pins"), tmp_path / "pins.toml"
    read = 0
    for _ in range(N_PINS):
        path.write_bytes(file_of(spoilt(PINS, random_), random_))
        try:
            for source in read_pins(path).values():
                assert source.n_bytes is None or source.n_bytes >= 0
                assert isinstance(source.licence, str) and isinstance(source.pin, str)
            read += 1
        except LoomError as error:
            assert error.what.strip()
        except Exception as error:
            raise AssertionError(f"{path.read_bytes()[:2000]!r} (seed {SEED}): {error!r}") from error
    assert read


def bundled(folder: Path, target: Path, random_: random.Random) -> None:
    """A bundle of a folder's files as somebody might send it: whole, cut, or with entries of their own."""
    with tarfile.open(target, "w:gz") as archive:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in (".json", ".jsonl", ".gz"):
                archive.add(path, path.name)
        if random_.random() < 0.2:
            entry = tarfile.TarInfo(
                random_.choice(("../x", "/x", "plan.json", "scores-x@1.jsonl", "a" * 200, "x/plan.json"))
            )
            entry.size, entry.type = (
                5,
                random_.choice((tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.REGTYPE)),
            )
            archive.addfile(entry, io.BytesIO(b"hello") if entry.isreg() else None)
    content = target.read_bytes()
    if random_.random() < 0.15:
        at = random_.randrange(len(content))
        target.write_bytes(
            random_.choice((content[:at], content[:at] + b"\0" + content[at + 1 :], b"", content + b"x"))
        )


def mutated_runs(n: int, base: Path, random_: random.Random, use: Callable[[Path, str, int], None]) -> None:
    for number in range(n):
        folder = Path(f"m{number}")
        shutil.copytree(base, folder)
        done = "; ".join(mutate(folder, random_) for _ in range(random_.choice((1, 1, 2))))
        use(folder, done, number)
        shutil.rmtree(folder, ignore_errors=True)


def complete(folder: Path) -> bool:
    """Whether a folder that a command left with exit code 0 holds what was asked."""
    state = json.loads((folder / "report.json").read_text("utf-8"))["state"]
    return bool(state["complete"])


@pytest.fixture
def base(here: Path) -> Path:
    """A complete run of the double with two arms."""
    with chdir(here):
        line = ("run", "passkey@words=8,depths=2,repeats=2", "--model", "toy", "--accel", "truncate:budget=256")
        code, said = ask(*line, "--out", "base", "-q")
        assert code == 0, said
    return here / "base"


def test_mutated_folders_are_continued_and_scored_or_refused(here: Path, base: Path) -> None:
    random_, ends = random.Random(f"{SEED} folders"), [0, 0]

    def use(folder: Path, done: str, number: int) -> None:
        command = ("run", "score")[number % 2]
        code, said = asked(done, command, str(folder), *(("-q",) if command == "run" else ()))
        ends[code != 0] += 1
        if code == 0 and command == "run":
            assert complete(folder), f"loom run of {done} (seed {SEED}): 0 with {said}"

    with chdir(here):
        mutated_runs(N_FOLDERS, base, random_, use)
    assert min(ends) > N_FOLDERS // 20, "both ends are met"


def test_mutated_folders_and_bundles_are_made_again_and_compared_or_refused(here: Path, base: Path) -> None:
    random_ = random.Random(f"{SEED} bundles")

    def use(folder: Path, done: str, number: int) -> None:
        source = folder
        if number % 2:
            source = folder.with_suffix(".tar.gz")
            bundled(folder, source, random_)
        out = Path(f"again{number}")
        code, said = asked(done, "reproduce", str(source), "--out", str(out), "-q")
        if code == 0:
            assert complete(out), f"loom reproduce of {done} (seed {SEED}): 0 with {said}"
        if number % 3 == 0:
            asked(done, "compare", str(folder), str(base))
            asked(done, "report", str(folder), "--bundle", "b.tar.gz")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with chdir(here):
        mutated_runs(N_BUNDLES, base, random_, use)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "KiB: under 1 GiB"


def test_the_files_are_right_as_they_are(here: Path) -> None:
    random_ = random.Random(1)
    with chdir(here):
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RECORDS))
        for made, model in ((DESCRIBED, ("--model", "toy")), (RUN, ()), (STUDY, ())):
            text = "".join(f"{json.dumps(key)} = {toml(item)}\n" for key, item in made.items())
            Path("x.toml").write_text(text)
            code, said = ask("plan", "./x.toml", *model)
            assert code == 0, said
    assert random_ and ODD
