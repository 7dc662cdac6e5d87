"""Attacks from a model's code: each is contained, and each is a failed test, not a lost sample."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from loom_metric_code.passes import CodePasses, fenced, program
from loom_metric_code.plugin import CodeOptions
from loom_metric_code.process import Limits, Program, run
from loom_metric_code.syscalls import kernel_filter

from loom_core.api import Prompt, Sample, UsageError, build

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
Rule = Literal["kernel", "audit"]
RULES: tuple[Rule, ...] = ("kernel", "audit")
ENDED = ("killed by SIGXCPU", "killed by SIGKILL")
GUESSING = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, b"passed\\n")
    except OSError:
        pass
os._exit(0)
"""


def sample(**meta: object) -> Sample:
    """A task: add two numbers."""
    test = "def check(f):\n    assert f(1, 2) == 3\n"
    shown = {"code_prompt": "def add(a, b):\n", "code_test": test, "code_entry": "add", **meta}
    return Sample(id="s", task="t", prompt=Prompt(segments=()), references=(), meta=shown)


def scored(code: str, **options: object) -> tuple[float | None, str]:
    """The value of some code, and the verdict or reason."""
    result = CodePasses(CodeOptions(run=True, **options)).score(code, sample())  # type: ignore[arg-type]
    return result.value, str(result.detail.get("verdict") or result.detail.get("error"))


@pytest.mark.parametrize("rule", RULES)
def test_right_and_wrong_code(rule: Rule) -> None:
    assert scored("    return a + b\n", confine=rule) == (1.0, "passed")
    assert scored("    return a - b\n", confine=rule) == (0.0, "raised AssertionError")
    assert scored("    return a +\n", confine=rule) == (0.0, "raised SyntaxError")
    assert scored("", confine=rule)[0] == 0.0


def test_off_by_default() -> None:
    result = CodePasses().score("    return a + b\n", sample())
    assert result.value is None and "--metric-option code.run=true" in str(result.detail["error"])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "attack",
    [
        "import os\nos.fork()",
        "import os\nwhile True:\n    os.fork()",
        "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import socket\nsocket.socket()",
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "import socket\nsocket.socketpair()",
        "open('here.txt', 'w').write('x')",
        "open(OUTSIDE, 'w').write('x')",
        "import os\nos.remove(OUTSIDE)",
        "import os\nos.rename(OUTSIDE, OUTSIDE + 'x')",
        "import os\nos.mkdir(OUTSIDE + 'd')",
        "import os\nos.chmod(OUTSIDE, 0)",
        "import os\nos.truncate(OUTSIDE, 0)",
        "import os, signal\nos.kill(os.getppid(), signal.SIGTERM)",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
    ],
)
def test_attacks_are_refused(attack: str, rule: Rule, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious", "utf-8")
    mode = victim.stat().st_mode
    verdict = run(Program(f"OUTSIDE = {str(victim)!r}\n{attack}\n"), Limits(5.0, 512 << 20, rule))
    assert not verdict.passed
    # Where the process has a root folder of its own, the file is not there at all.
    names = ("PermissionError", "OSError", "ValueError", "FileNotFoundError")
    assert verdict.why.startswith("raised ") and verdict.why.split()[1] in names
    assert victim.read_text("utf-8") == "precious" and victim.stat().st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["victim.txt"]


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        ("import time\ntime.sleep(60)", "time: more than 0.5 s"),
        ("import os\nos._exit(0)", "ended with exit code 0 before its tests were over"),
        ("raise SystemExit(0)", "raised SystemExit"),
        ("x = bytearray(4 << 30)", "raised MemoryError"),
        (GUESSING, ""),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()", ""),
        ("import ctypes\nctypes.string_at(0)", ""),
    ],
)
def test_greed_and_tricks_fail_and_leave_nothing_behind(attack: str, why: str) -> None:
    began = time.monotonic()
    verdict = run(Program(attack), Limits(0.5 if "sleep" in attack else 5.0, 256 << 20))
    assert not verdict.passed and (not why or verdict.why == why), verdict
    assert time.monotonic() - began < 40


def test_an_endless_loop_is_ended() -> None:
    verdict = run(Program("while True: pass"), Limits(0.7, 256 << 20))
    assert not verdict.passed and (verdict.why.startswith("time") or verdict.why in ENDED)


def test_threads_and_imports_work_inside() -> None:
    code = "import threading, json, decimal\nt = threading.Thread(target=print)\nt.start()\nt.join()\n"
    assert run(Program(code), Limits(5.0, 512 << 20)).why == "passed"


def test_the_c_level_is_confined_too() -> None:
    """What gets around Python's hooks meets the kernel's filter."""
    code = "import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nassert c.fork() == -1 and ctypes.get_errno() == 1\n"
    code += "assert c.socket(2, 1, 0) == -1 and ctypes.get_errno() == 1\n"
    code += "assert c.creat(b'x', 511) == -1 and ctypes.get_errno() == 1\n"
    assert run(Program(code), Limits(5.0, 512 << 20)).why == "passed"


def test_no_environment_reaches_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-secret-of-the-user")
    code = "import os\nassert not any('KEY' in name for name in os.environ)\n"
    assert run(Program(code), Limits(5.0, 512 << 20)).why == "passed"
    assert os.environ["SOME_API_KEY"]


BROKEN = (
    ("ARCHITECTURES = {", "ARCHITECTURES = {} and {", "syscalls.py", "no system-call filter is written for"),
    ("library.syscall(RESTRICT, ruleset, 0)", "-1", "walls.py", "files: Landlock does not hold this process"),
    ('library.syscall(_calls()["capset"], header, bytes(24))', "-1", "walls.py", "capabilities cannot be dropped"),
    ("    if 0 in _users() or", "    if True or", "walls.py", "another user: this is still root"),
    ("os.listdir(needed)", "raise OSError", "walls.py", "cannot read Python's library"),
    ("SECCOMP_MODE_FILTER, ctypes.byref", "99, ctypes.byref", "syscalls.py", "takes no system-call filter"),
)


def broken(place: Path, monkeypatch: pytest.MonkeyPatch, file: str, *changes: tuple[str, str]) -> None:
    """Let the child be a copy of the package in which one file is changed."""
    import loom_metric_code.process as process

    package = place / "loom_metric_code"
    shutil.copytree(process.INSIDE.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    text = (package / file).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (package / file).write_text(text, "utf-8")
    monkeypatch.setattr(process, "INSIDE", package / "inside.py")


@pytest.mark.parametrize(("old", "new", "file", "reason"), BROKEN)
def test_what_cannot_be_confined_is_not_run(
    old: str, new: str, file: str, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A promise that the system does not keep is named, and nothing runs; there is no weaker rule unasked."""
    broken(tmp_path, monkeypatch, file, (old, new))
    value, why = scored("    return a + b\n")
    assert value is None and reason in why and "code.confine=audit" in why


def test_without_landlock_files_are_hidden_by_a_root_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken(tmp_path, monkeypatch, "walls.py", ("landlock_version(), []", "0, []"))
    verdict = run(Program("def f():\n    open('/etc/passwd')", "f()"), Limits(5.0, 512 << 20))
    assert verdict.why == "raised FileNotFoundError" and verdict.walls.startswith("own root folder")


def test_filters_are_written_for_two_architectures() -> None:
    for machine in ("x86_64", "aarch64"):
        assert len(kernel_filter(machine, 1)) % 8 == 0
    with pytest.raises(OSError, match="riscv64"):
        kernel_filter("riscv64", 1)


@pytest.mark.parametrize(
    "given",
    [{"run": "maybe"}, {"seconds": "nan"}, {"seconds": float("nan")}, {"seconds": "inf"}, {"memory_mib": "1.5"},
              {"confine": "none"}, {"seconds": "0"}, {"memory_mib": "-1"}]
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(given))):
        build(CodeOptions, given, owner="code_passes")


def test_what_a_verdict_says_of_itself() -> None:
    result = CodePasses(CodeOptions(run=True)).score("    return a + b\n", sample())
    assert result.detail["judged_on"] == "data" and str(result.detail["confined_by"]).startswith("kernel: ")


@pytest.mark.parametrize(
    ("answer", "test", "prompt", "judged"),
    [
        ("class Box:\n    def get(self): return 3\n", "assert Box().get() == 3", "", "objects of the answer's classes"),
        ("    return [1]\n", "assert Make() == [1]", "def Make():\n", "data"),
        ("def f(l): l.sort()\n", "x = [2, 1]\nf(x)\nassert x == [1, 2]", "", "data"),
        ("def f(g, l): return sorted(l, key=g)\n", "assert f(lambda x: -x, [1, 2]) == [2, 1]", "", "data"),
        ("def f(n):\n    yield from range(n)\n", "assert list(f(2)) == [0, 1]", "", "data"),
        ("def f(): {}['k']\n", "try:\n    f()\nexcept KeyError as e:\n    assert e.args == ('k',)", "", "data"),
        ("def sum(a, b): return a * b\n", "assert sum(2, 3) == 6", "", "data"),
        ("import math\ndef f(): return 2.0**0.5\n", "assert math.isclose(f() ** 2, 2)", "", "data"),
        ("def f(): return [{1: (2, None)}, {3}, b'4', 5j, 6**99, '\\ud800']\n",
         "assert f() == [{1: (2, None)}, {3}, b'4', 5j, 6**99, '\\ud800']", "", "data"),
        ("    return half(x)\n", "assert f(4) == half(4)",
         "def half(x):\n    return x / 2\ndef f(x):\n    'Half.'\n", "data"),
    ],
)  # fmt: skip
def test_honest_answers_pass_across_two_processes(answer: str, test: str, prompt: str, judged: str) -> None:
    one = sample(code_test=test, code_prompt=prompt, code_entry="")
    result = CodePasses(CodeOptions(run=True)).score(answer, one)
    assert (result.value, result.detail["verdict"], result.detail["judged_on"]) == (1.0, "passed", judged)


def test_tests_that_need_the_answers_process_give_no_value() -> None:
    options = CodeOptions(run=True)
    for test, reason in (
        ("import sys\ndef check(f):\n    assert sys.stdout", "they use stdout"),
        ("def check(f):\n    assert 'add' in globals()", "they use globals"),
        ("    assert add(1, 2) == 3", "they are not a Python program of their own (IndentationError)"),
        ("import inspect\ndef check(f): pass", "they import inspect"),
        ("def check(f):\n    class A: pass\n    f(A(), 1)", "they make objects of a class of their own"),
    ):
        result = CodePasses(options).score("    return a + b\n", sample(code_test=test))
        assert result.value is None and str(result.detail["error"]).endswith(reason), result


def test_programs_are_put_together_as_humaneval_does() -> None:
    test = "def check(f):\n    assert f(1, 2) == 3\n"
    assert program("    return 1", sample()) == Program("    return 1", test, "def add(a, b):\n", "add")
    assert fenced("Sure:\n```python\nx = 1\n```\nDone") == "x = 1\n" and fenced("x = 2") == "x = 2"
