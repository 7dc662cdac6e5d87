"""Every attack in `code_cheats.ATTACKS`, as root and as an ordinary user: none gets through, none tells a secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from loom_metric_code.process import OWN_WORDS

sys.path.insert(0, str(Path(__file__).parent))
from code_cheats import ATTACKS

RUNNER = Path(__file__).with_name("code_attack_runner.py")
KEY = "sk-SECRET-OF-THE-USER"
USERS = ("root", "ordinary")
KINDS = ("cheat", "escape", "file", "network", "resource", "secret", "signal", "terminal")
BUILT_IN = re.compile(r"raised ([A-Z][A-Za-z]+|another exception)")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")


@cache
def ended(user: str, rule: str) -> dict[str, Any]:
    """How each attack ended."""
    if user == "root" and os.geteuid() != 0:
        pytest.skip("only root can try what root's answers may do")
    environment = {**os.environ, "LOOM_VICTIM_KEY": KEY}
    command = [sys.executable, str(RUNNER), user, rule]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_attack_gets_through(kind: str, user: str) -> None:
    ends = {name: end for name, end in ended(user, "kernel")["ends"].items() if name.startswith(f"{kind}: ")}
    assert ends and {name: end for name, end in ends.items() if end["passed"] is not False} == {}


@pytest.mark.parametrize("user", USERS)
def test_nothing_of_the_user_is_harmed(user: str) -> None:
    result = ended(user, "kernel")
    assert result["unharmed"] and (result["uid"] == 0) == (user == "root")


@pytest.mark.parametrize("user", USERS)
def test_verdicts_are_of_a_fixed_vocabulary(user: str) -> None:
    for name, end in ended(user, "kernel")["ends"].items():
        why = end["why"]
        known = BUILT_IN.fullmatch(why) or why.startswith((*OWN_WORDS, "time: more than "))
        assert known and why.isprintable() and len(why) < 80, (name, why)
        assert KEY not in why and "LOOM_VICTIM_KEY" not in why


@pytest.mark.parametrize("user", USERS)
def test_another_user_and_no_files(user: str) -> None:
    walls = {end["walls"] for end in ended(user, "kernel")["ends"].values()}
    assert len(walls) == 1 and "uid 0" not in walls.pop()


def test_attacks_have_teeth() -> None:
    """Those that can be tried without harm get through where nothing confines them."""
    bare = ended("root" if os.geteuid() == 0 else "ordinary", "bare")["ends"]
    assert len(bare) > 60 and [name for name, end in bare.items() if not end["passed"]] == []


def test_attacks_are_many_and_of_every_kind() -> None:
    names = [(attack.kind, attack.name) for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 58 and {kind for kind, _ in names} == set(KINDS)


@pytest.mark.parametrize("user", USERS)
def test_the_weaker_rule_refuses_what_python_announces(user: str) -> None:
    """By audit hooks: files, secrets, network, processes from Python; what goes through C is not promised."""
    ends = ended(user, "audit")["ends"]
    plain = {f"{a.kind}: {a.name}" for a in ATTACKS if a.kind in ("file", "secret", "network", "cheat", "terminal")}
    plain -= {"file: watch files", "network: socket, at the C level", "network: sendto on a descriptor"}
    assert {name: end for name, end in ends.items() if name in plain and end["passed"] is not False} == {}
