"""Secrets of the environment stay there: no file of a run holds one, whatever a plugin prints or raises."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from loom_core.run.config import RunConfig
from loom_core.run.manifest import redact, redacted, secrets, secrets_of

SECRET = "sk-planted-0123456789"


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a folder, unpacked."""
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, gzip.decompress(data) if path.suffix == ".gz" else data


def test_a_planted_secret_appears_in_no_file_of_the_run(loom: Any) -> None:
    command = ("run", "fable@n=4,mood=moody:tell", "--model", "toy", "--accel", "fable_leak")
    done = loom(*command, "--out", "run", env={"FABLE_API_KEY": SECRET}, code=3)
    files = dict(contents(loom.cwd))
    names = {path.name for path in files}
    assert {"manifest.json", "plan.json", "responses.jsonl", "worker-1.log", "scores-fable_moody@2.jsonl"} <= names
    for path, data in files.items():
        assert SECRET.encode() not in data, f"{path} holds the secret"
    assert SECRET not in done.out + done.err
    errors = [record["error"] for record in loom.records(loom.cwd / "run") if record["error"]]
    assert errors == ["RuntimeError: refused with key [redacted]"] * 4
    log = (loom.cwd / "run" / "logs" / "worker-1.log").read_text("utf-8")
    assert "leaking [redacted]" in log


def test_a_secret_given_as_a_name_or_option_is_redacted_too(loom: Any) -> None:
    env = {"FABLE_API_KEY": SECRET}
    loom("run", "fable@n=2:tell", "--model", SECRET, "--server", "double", "--out", "run", env=env)
    for path, data in contents(loom.cwd):
        assert SECRET.encode() not in data, f"{path} holds the secret"


def test_a_key_that_an_answer_repeats_is_hidden_whatever_its_variable_is_called(loom: Any) -> None:
    script = loom.cwd / "script.jsonl"
    script.write_text('{"say": "<think>' + SECRET + "</think>the key is " + SECRET + '"}\n', "utf-8")
    config = RunConfig().merged({"server_options": {"key_env": "PLAIN_AUTH"}}, "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAIN_AUTH", SECRET)
        assert SECRET in secrets_of(config) and SECRET not in secrets_of(RunConfig())
    ask = ("run", "fable@n=2:tell", "--model", "toy", "--server-option", "script=script.jsonl")
    loom(*ask, "--thinking", "<think>,</think>", "--out", "run", env={"FABLE_API_KEY": SECRET})
    for path, data in contents(loom.cwd / "run"):
        assert SECRET.encode() not in data, f"{path} holds the secret"
    said = {(record["text"], record["reasoning"]) for record in loom.records(loom.cwd / "run")}
    assert said == {("the key is [redacted]", "[redacted]")}


def test_a_secret_in_the_name_of_the_run_folder_is_not_made_by_loom(loom: Any) -> None:
    loom("run", "fable@n=2:tell", "--model", SECRET, "--server", "double", env={"FABLE_API_KEY": SECRET})
    assert SECRET not in loom.folder().name


def test_error_messages_on_the_terminal_are_redacted(loom: Any) -> None:
    done = loom("run", SECRET, "--model", "toy", env={"FABLE_API_KEY": SECRET}, code=2)
    assert SECRET not in done.err and "unknown benchmark '[redacted]'" in done.err


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("OPENAI_API_KEY", "sk-12345678", True),
        ("HF_TOKEN", "hf_12345678", True),
        ("my_password", "correct horse", True),
        ("DB_CREDENTIALS", "user:password", True),
        ("HOME", "not-a-secret", False),
        ("SHORT_TOKEN", "1234567", False),
    ],
)
def test_which_variables_are_secret(name: str, value: str, hidden: bool) -> None:
    assert (secrets({name: value}) == [value]) is hidden


def test_each_line_of_a_private_key_is_secret() -> None:
    found = secrets({"SSH_KEY": "-----BEGIN-----\nabcdefghij\nklmnopqrst\n-----END-----"})
    assert redact("line: abcdefghij", found) == "line: [redacted]"


def test_a_secret_within_a_secret_leaves_no_rest() -> None:
    found = secrets({"A_TOKEN": "password-1", "B_TOKEN": "password-1-and-more"})
    assert redact("x password-1-and-more y", found) == "x [redacted] y"


texts = st.text("ab", max_size=4)


@given(st.recursive(texts, lambda v: st.lists(v, max_size=3) | st.dictionaries(texts, v, max_size=3), max_leaves=6))
def test_every_text_of_a_value_is_redacted(value: Any) -> None:
    planted = {"deep": [value, f"x{SECRET}y", {SECRET: SECRET}]}
    clean = redacted(planted, [SECRET])
    assert SECRET not in str(clean) and clean["deep"][0] == value
