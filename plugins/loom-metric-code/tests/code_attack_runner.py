"""Runs attacks under one user and prints, as JSON, how each ended. Arguments: root|ordinary kernel|audit|bare.

`ordinary` run by root becomes nobody first, in a file system where nobody reaches this interpreter. `bare` runs those
that must get through without any confinement, each in a process of its own.
"""

from __future__ import annotations

import ctypes
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from code_attacks import Attack
from code_cheats import ATTACKS
from loom_metric_code.process import Limits, NotSplit, Program, Unconfined, run

NOBODY = 65534
LONG = ("threads", "a message without end", "much output", "an endless loop", "a long sleep", "deaf to signals")


def become_nobody() -> None:
    """From root to nobody; folders that only root enters are covered, for this process, by ones that all may enter."""
    library = ctypes.CDLL(None, use_errno=True)
    assert library.unshare(0x20000) == 0
    assert library.mount(None, b"/", None, ctypes.c_ulong(0x44000), None) == 0
    known = (sys.base_prefix, sys.prefix, *sys.path)
    needed = {Path(path).resolve() for path in known if path and Path(path).exists()}
    blocked = {top for path in needed for top in path.parents if not top.stat().st_mode & 0o001}
    for top in sorted(top for top in blocked if not blocked & set(top.parents)):
        below = sorted(path for path in needed if top in path.parents)
        held = {path: os.open(path, os.O_PATH) for path in below if not set(below) & set(path.parents)}
        assert library.mount(b"tmpfs", os.fsencode(top), b"tmpfs", ctypes.c_ulong(0), b"mode=755") == 0
        for path, descriptor in held.items():
            path.mkdir(parents=True)
            source = f"/proc/self/fd/{descriptor}".encode()
            assert library.mount(source, os.fsencode(path), None, ctypes.c_ulong(0x5000), None) == 0
            os.close(descriptor)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    library.prctl(4, 1, 0, 0, 0)


def attacked(attack: Attack, words: Mapping[str, object], rule: str) -> dict[str, object]:
    """How one attack ended."""
    code = attack.code
    for word, value in words.items():
        code = code.replace("{" + word + "}", str(value))
    if rule == "bare":
        text = f"{code}\nif f() is True: print('through')\n"
        ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
        return {"passed": "through" in ended.stdout, "why": ended.stderr[-300:]}
    seconds = 1.0 if attack.name in LONG else 10.0
    try:
        verdict = run(Program(code, attack.tests), Limits(seconds, 256 << 20, "audit" if rule == "audit" else "kernel"))
    except (NotSplit, Unconfined) as error:
        return {"passed": None, "why": f"{type(error).__name__}: {error}"}
    return {"passed": verdict.passed, "why": verdict.why, "walls": verdict.walls}


def main() -> None:
    """Set up the stand-ins, run the attacks, see what became of the stand-ins."""
    user, rule = sys.argv[1:]
    if user == "ordinary" and os.geteuid() == 0:
        become_nobody()
    bystander = subprocess.Popen([sys.executable, "-c", "import time\ntime.sleep(3600)"])
    _, terminal = pty.openpty()
    try:
        with tempfile.TemporaryDirectory() as folder:
            victim = Path(folder, "victim.txt")
            victim.write_text("precious", "utf-8")
            before = victim.stat()
            words = {
                "VICTIM": victim,
                "FOLDER": folder,
                "PARENT": os.getpid(),
                "BYSTANDER": bystander.pid,
                "TERMINAL": os.ttyname(terminal),
            }
            chosen = [attack for attack in ATTACKS if attack.bare or rule != "bare"]
            ends = {f"{attack.kind}: {attack.name}": attacked(attack, words, rule) for attack in chosen}
            after = victim.stat()
            same = (before.st_mode, before.st_mtime_ns, before.st_uid) == (
                after.st_mode,
                after.st_mtime_ns,
                after.st_uid,
            )
            unharmed = same and victim.read_text("utf-8") == "precious" and os.listdir(folder) == ["victim.txt"]
        print(json.dumps({"ends": ends, "unharmed": unharmed and bystander.poll() is None, "uid": os.getuid()}))
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()


if __name__ == "__main__":
    main()
