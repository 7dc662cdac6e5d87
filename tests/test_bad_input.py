"""Bad input: one clear message that says what, where, why and what next; no traceback; nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TOY = ("--model", "toy")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder; a lock says only who held it last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(loom: Any, *arguments: str, code: int = 2) -> str:
    """The message of a command that is refused; it leaves no file behind."""
    before = snapshot(loom.cwd)
    done = loom(*arguments, code=code)
    assert snapshot(loom.cwd) == before, "a refused command leaves nothing behind"
    assert done.out == "" and done.err.startswith("error: ")
    return str(done.err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fabel", *TOY), ["unknown benchmark 'fabel'", "did you mean fable?", "loom list benchmarks"]),
        (("fable:tel", *TOY), ["unknown task 'tel' of benchmark fable", "where: fable:tel", "did you mean tell?"]),
        (
            ("fable", *TOY, "--accel", "fable_haed:keep=0.5"),
            ["unknown augmentation 'fable_haed'", "did you mean fable_head", "loom list augmentations"],
        ),
        (
            ("fable", *TOY, "--accel", "fable_head:kep=0.5"),
            ["unknown option 'kep'", "augmentation fable_head", "did you mean keep?", "loom info fable_head"],
        ),
        (("fable@wrods=3", *TOY), ["unknown option 'wrods'", "benchmark fable", "did you mean words?"]),
        (("fable", *TOY, "--server", "doubel"), ["unknown server 'doubel'", "did you mean double?", "list servers"]),
        (("fable", *TOY, "--suite", "quikstart"), ["unknown suite 'quikstart'", "loom list suites"]),
        (
            ("fable", *TOY, "--server-option", "answrs=echo"),
            ["unknown option 'answrs'", "server double", "did you mean answers?"],
        ),
        (("fable", *TOY, "--model-option", "windwo=9"), ["unknown option 'windwo'", "did you mean window?"]),
    ],
)
def test_unknown_names_come_with_near_ones(loom: Any, arguments: tuple[str, ...], words: list[str]) -> None:
    message = refused(loom, "run", *arguments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fable@words=0",), ["bad value for option 'words'", "words=0 is below the least value 1", "of a context"]),
        (("fable@n=1m",), ["n=1048576 is above the greatest value 10000"]),
        (("fable@words=many",), ["expected a whole number, got 'many' (write 4096 or 4k)", "loom info fable"]),
        (("fable@mood=sad",), ["expected one of calm, moody, judged, got 'sad'"]),
        (("fable", "--accel", "fable_head:keep=2"), ["keep=2 is above the greatest value 1", "share of the context"]),
        (("fable", "--accel", "fable_head:keep=half"), ["expected a number, got 'half'"]),
        (("fable", "--accel", "fable_head:keep=nan"), ["expected a finite number, got 'nan'"]),
        (("fable", "--accel", "fable_head:keep"), ["'keep' is not an option", "name=value,name=value"]),
        (("fable", "--accel", "fable_head:keep={0.1,0.2"), ["unbalanced braces", "write {a,b}"]),
        (("fable", "--accel", "fable_head++fable_head"), ["unknown augmentation ''"]),
        (("fable", "--server-option", "errors=2"), ["errors=2 is above the greatest value 1", "server double"]),
        (("fable", "--server-option", "api_key=abc"), ["looks like a secret", "give secrets in the environment"]),
        (("fable", "--limit", "0"), ["bad value for 'limit'", "command line", "0 is below 1"]),
        (("fable", "--limit", "ten"), ["bad value for 'limit'", "expected a whole number, got 'ten'"]),
        (("fable", "--lengths", "4k,huge"), ["bad value for 'lengths'", "expected a whole number, got 'huge'"]),
        (("fable", "--overlength", "cut"), ["bad value for 'overlength'", "error, skip, truncate"]),
        (("fable", "--workers", "0"), ["bad value for 'workers'", "0 is below 1"]),
        (("fable", "fable@n=3"), ["task fable:tell is asked for twice", "fable and fable@n=3", "run them apart"]),
        (("fable", "--accel", "fable_again+fable_stuck"), ["one strategy at most", "fable_again and fable_stuck"]),
    ],
)
def test_values_that_cannot_be_meant(loom: Any, arguments: tuple[str, ...], words: list[str]) -> None:
    message = refused(loom, "run", *arguments, *TOY)
    for word in words:
        assert word in message


def test_an_arm_that_the_server_cannot_do(loom: Any) -> None:
    message = refused(loom, "run", "fable", *TOY, "--accel", "fable_head+fable_cache")
    assert "server double cannot do fable_cache" in message and "arm fable_head+fable_cache" in message
    assert "fable_cache needs local_model" in message and "servers that can:" in message


def test_unknown_commands_and_flags(loom: Any) -> None:
    assert "unknown command 'rnu'" in refused(loom, "rnu") and "did you mean run?" in refused(loom, "rnu")
    done = loom("run", "fable", "--modle", "toy", code=2)
    assert "--modle" in done.err and "--model" in done.err and "loom run --help" in done.err
    assert "did you mean fable" in refused(loom, "info", "fabel")


# --- prompts that are too long ---------------------------------------------------------------------------------------

WINDOW = ("--model-option", "window=230")


def test_too_long_prompts_are_refused_with_the_arithmetic(loom: Any) -> None:
    message = refused(loom, "run", "fable:tell", *TOY, *WINDOW)
    assert "9 of 12 prompts are longer than the model's window" in message
    assert "fable:tell, sample q3: 219 + 16 new tokens > 230" in message
    assert "the longest has 279 tokens; the window is 230, answer included" in message
    assert "--overlength truncate or --overlength skip" in message
    planned = loom("plan", "fable:tell", *TOY, *WINDOW, code=2)
    assert "refused: 9 of 12 prompts" in planned.err and "219 + 16 new tokens > 230" in planned.err
    row = next(line.split() for line in planned.out.splitlines() if line.startswith("fable:tell") and "short" in line)
    assert row == ["fable:tell", "short", "6", "219-279", "6"]
    made = json.loads(loom("plan", "fable:tell", *TOY, *WINDOW, "--format", "json", code=2).out)
    assert made["overlength"]["n_over"] == 9 and made["overlength"]["longest"] == 279


def test_skipping_too_long_prompts_is_counted(loom: Any) -> None:
    done = loom("run", "fable:tell", *TOY, *WINDOW, "--overlength", "skip")
    assert len(loom.records()) == 3 and "9 skipped" in done.out
    plan = json.loads((loom.folder() / "plan.json").read_text("utf-8"))
    assert sum(level["n_skipped"] for level in plan["tasks"][0]["levels"]) == 9 and plan["n_jobs"] == 3


def test_truncating_too_long_prompts_is_counted(loom: Any) -> None:
    done = loom("run", "fable:tell", *TOY, *WINDOW, "--overlength", "truncate")
    records = loom.records()
    cut = [record for record in records if record["n_dropped"]]
    assert len(records) == 12 and len(cut) == 9 and "9 truncated" in done.out
    assert all(record["n_in"] == 230 - 16 and record["cut"] == ["context"] for record in cut)
    plan = json.loads((loom.folder() / "plan.json").read_text("utf-8"))
    assert plan["overlength"]["policy"] == "truncate" and plan["overlength"]["n_over"] == 9


def test_a_window_too_small_for_the_question_says_so(loom: Any) -> None:
    tiny = ("--model-option", "window=20")
    done = loom("run", "fable:tell", *TOY, *tiny, "--overlength", "truncate", code=3)
    assert "12 of 12 answers are missing (12 failed)" in done.out
    error = loom.records()[0]["error"]
    assert "does not fit even with an empty context" in error and "4 allowed" in error
    message = refused(loom, "run", "fable:tell", *TOY, *tiny, "--overlength", "skip")
    assert "nothing is left to run" in message and "12 of 12 prompts are longer" in message


def test_a_rewritten_prompt_that_fits_is_not_skipped(loom: Any) -> None:
    loom("run", "fable:tell", *TOY, *WINDOW, "--overlength", "skip", "--accel", "fable_head:keep=0.1")
    arms = [record["arm"] for record in loom.records()]
    assert arms.count("dense") == 3 and arms.count("fable_head:keep=0.1") == 12


# --- run folders -----------------------------------------------------------------------------------------------------


def test_the_folder_of_another_configuration_shows_what_differs_and_stays_as_it_is(loom: Any) -> None:
    loom("run", "fable:tell", *TOY, "--out", "one")
    message = refused(loom, "run", "fable:tell", *TOY, "--out", "one", "--limit", "3", "--seed", "4", code=1)
    assert "made by another configuration" in message and "where: one" in message
    assert "limit: None → 3" in message and "seed: 0 → 4" in message
    assert "--out" in message and "loom run one" in message
    server = refused(loom, "run", "fable:tell", *TOY, "--out", "one", "--server-option", "answers=echo", code=1)
    assert "its server options differ" in server


@pytest.mark.parametrize("flag", [("--limit", "3"), ("--model-option", "window=9"), ("--accel", "fable_head")])
def test_what_a_run_asks_cannot_be_changed_while_it_is_continued(loom: Any, flag: tuple[str, str]) -> None:
    loom("run", "fable:tell", *TOY, "--out", "one")
    message = refused(loom, "run", "./one", *flag)
    assert f"{flag[0]} cannot be changed in an existing run" in message and "start another run" in message


@pytest.mark.parametrize("command", ["run", "score"])
def test_an_argument_that_is_no_run_folder(loom: Any, command: str) -> None:
    loom("run", "fable:tell", *TOY, "--out", "fables")
    message = refused(loom, command, "./fable", code=1)
    assert "not a run folder" in message and "it does not exist" in message and "did you mean fables?" in message
    (loom.cwd / "empty").mkdir()
    assert "it has no manifest.json" in refused(loom, command, "./empty", code=1)
    (loom.cwd / "site").mkdir()
    (loom.cwd / "site" / "manifest.json").write_text('{"name": "my web app"}')
    assert "its manifest.json is not loom's" in refused(loom, command, "./site", code=1)
    (loom.cwd / "site" / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in refused(loom, command, "./site", code=1)


def test_nothing_of_a_user_is_overwritten(loom: Any) -> None:
    (loom.cwd / "mine").mkdir()
    (loom.cwd / "mine" / "manifest.json").write_text('{"name": "my web app"}')
    (loom.cwd / "mine" / "thesis.tex").write_text("years of work")
    before = snapshot(loom.cwd)
    done = loom("run", "fable:tell", *TOY, "--out", "mine", code=1)
    assert "not a run folder" in done.err and "manifest.json, thesis.tex" in done.err and "--out" in done.err
    after = snapshot(loom.cwd)
    assert {name: after[name] for name in before} == before
    message = refused(loom, "run", "fable:tell", *TOY, "--out", "mine/thesis.tex", code=1)
    assert "the run folder cannot be written" in message and "--out" in message


def test_a_plan_that_cannot_be_read_is_one_clear_error(loom: Any) -> None:
    loom("run", "fable:tell", *TOY, "--out", "one")
    (loom.cwd / "one" / "plan.json").write_text("{")
    assert "plan.json cannot be read" in loom("run", "./one", code=1).err


# --- study files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["the study file cannot be read", "where: study.toml", "No such file", "check the path"]),
        ("limit = [", ["the study file is not valid TOML", "study.toml"]),
        ("limitt = 3", ["unknown setting 'limitt'", "study.toml", "did you mean limit?"]),
        ("limit = 'ten'", ["bad value for 'limit'", "study.toml", "expected a whole number, got 'ten'"]),
        ("benchmarks = 7", ["bad value for 'benchmarks'", "expected a list, got 7"]),
        ("[server_options]\napi_key = 'x'", ["looks like a secret", "environment"]),
    ],
)
def test_study_files(loom: Any, text: str | None, words: list[str]) -> None:
    if text is not None:
        (loom.cwd / "study.toml").write_text(text)
    message = refused(loom, "run", "study.toml")
    for word in words:
        assert word in message


def test_a_study_file_runs_and_flags_win(loom: Any) -> None:
    (loom.cwd / "study.toml").write_text(
        'benchmarks = ["fable@n=6:tell"]\nmodel = "toy"\naccel = ["fable_head:keep={0.2,0.4}"]\nlimit = 5\n'
    )
    loom("run", "study.toml", "--limit", "2")
    assert len(loom.records()) == 2 * 3
    manifest = json.loads((loom.folder() / "manifest.json").read_text("utf-8"))
    assert manifest["config"]["origins"] == {
        "benchmarks": "study.toml",
        "model": "study.toml",
        "accel": "study.toml",
        "limit": "command line",
    }


def test_a_study_and_other_arguments_do_not_mix(loom: Any) -> None:
    (loom.cwd / "study.toml").write_text('benchmarks = ["fable"]\n')
    assert "must be given alone" in refused(loom, "run", "study.toml", "fable", *TOY)


# --- models and data -------------------------------------------------------------------------------------------------


def test_a_mirror_that_does_not_exist(loom: Any) -> None:
    done = loom("run", "fable:tell", *TOY, "--data-dir", "nowhere", code=1)
    assert "the mirror folder does not exist" in done.err and "nowhere" in done.err and "LOOM_DATA" in done.err


def test_a_plan_writes_nothing(loom: Any) -> None:
    done = loom("plan", "fable", *TOY, "--accel", "fable_head", "--limit", "4")
    assert snapshot(loom.cwd) == {} and "16 answers from 8 samples" in done.out
    assert "limit from command line" in done.out


def test_a_protocol_that_the_server_cannot_keep_is_refused(loom: Any, toy_plugin: Path) -> None:
    (loom.cwd / "study.toml").write_text('benchmarks = ["fable"]\nmodel = "toy"\nprotocol = "context-only"\n', "utf-8")
    done = loom("run", "study.toml", code=2)
    assert "protocol context-only" in done.err and "query-aware" in done.err
    assert not (loom.cwd / "runs").exists()


def test_an_empty_study_file_is_no_quickstart(loom: Any) -> None:
    (loom.cwd / "empty.toml").write_text("# nothing\n")
    assert "the study file is empty" in refused(loom, "run", "empty.toml")


def test_a_number_beyond_all_use_is_told(loom: Any) -> None:
    assert "is above" in refused(loom, "run", "fable", *TOY, "--limit", "10000000000000000000000")


def test_a_run_folder_without_its_manifest_is_told_apart_from_a_benchmark(loom: Any) -> None:
    loom("run", "fable", *TOY, "--out", "mine")
    (loom.cwd / "mine" / "manifest.json").unlink()
    assert "not a run folder" in refused(loom, "run", "mine", code=1)


def test_a_name_near_none_lists_a_few(loom: Any) -> None:
    told = refused(loom, "info", "zzzzzzzzzz")
    assert "more)" in told and "loom list" in told and len(told) < 600


def test_a_bundle_and_a_run_made_again_need_a_place_of_their_own(loom: Any) -> None:
    loom("run", "fable", *TOY, "--out", "mine")
    assert "its folder does not exist" in refused(loom, "report", "mine", "--bundle", "nowhere/x.tgz")
    assert "it is a folder" in refused(loom, "report", "mine", "--bundle", "mine")
    assert "in its own folder" in refused(loom, "reproduce", "mine", "--out", "mine")
