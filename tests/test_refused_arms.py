"""A server that refuses one arm, when it is planned or when it is asked: the arm is named, and the others run."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import ask, quick

from loom_core.api import ModelError, ServerSpec, hookimpl
from loom_core.doubles.server import DoubleServer, DoubleSession
from loom_core.registry.plugins import load_all

TOY = ("--model", "toy", "-q")


def test_an_arm_that_the_server_cannot_do_is_left_out_and_told(loom: Any) -> None:
    arms = ("--accel", "fable_cache", "--accel", "fable_head")
    planned = loom("plan", "fable:tell", "--model", "toy", *arms)
    why = "server double cannot do fable_cache (arm fable_cache)"
    assert f"arm fable_cache is refused and does not run: {why}" in " ".join(planned.out.split())
    done = loom("run", "fable:tell", *TOY, *arms, "--out", "one", code=3)
    assert f"refused, did not run: arm fable_cache: {why}" in done.out and "continue:" not in done.out
    report = json.loads((loom.cwd / "one" / "report.json").read_text("utf-8"))
    assert [arm["name"] for arm in report["arms"]] == ["dense", "fable_head"] and report["state"]["complete"]
    assert [row["name"] for row in report["refused_arms"]] == ["fable_cache"]
    assert any(b["kind"] == "error" and "arm fable_cache is refused" in b["text"] for b in report["banners"])
    assert "is refused and does not run: server double cannot do" in (loom.cwd / "one" / "report.md").read_text("utf-8")
    assert "refused, did not run" in loom("run", "./one", code=3).out, "continued: still refused, nothing asked again"


def test_where_no_arm_is_left_the_run_ends(loom: Any) -> None:
    assert "cannot do fable_cache" in loom("run", "fable:tell", *TOY, "--accel", "fable_cache", code=2).err


class Picky(DoubleServer):
    """A double whose session refuses some arms when it is asked."""

    refused: tuple[str, ...] = ()

    @contextmanager
    def open(self, model: str, options: Any) -> Iterator[DoubleSession]:
        session = DoubleSession(self._options, self.describe(model, options))
        right = session.generate

        def generate(requests: Any, arm: Any) -> Iterator[Any]:
            if arm.name in Picky.refused:
                raise ModelError(f"this model cannot do {arm.name}", why="its layers differ")
            yield from right(requests, arm)

        session.generate = generate  # type: ignore[method-assign]
        yield session


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_plugin: Path) -> Iterator[Path]:
    from loom_core.doubles.plugin import DoubleOptions, ToyModelOptions

    quick(monkeypatch)
    catalog = load_all()

    @hookimpl
    def loom_servers() -> Any:
        spec = ServerSpec(
            name="picky",
            version="1",
            summary="x",
            factory=f"{__name__}:Picky",
            capabilities=frozenset({"token_ids", "references"}),
            options=DoubleOptions,
            model_options=ToyModelOptions,
        )
        return (spec,)

    module = types.ModuleType("picky")
    module.loom_servers = loom_servers  # type: ignore[attr-defined]
    catalog.register(module, "picky", "loom-picky", "1")
    for place in ("loom_core.registry.plugins", "loom_core.run.worker"):
        monkeypatch.setattr(f"{place}.installed", lambda: catalog)
    with chdir(tmp_path):
        yield tmp_path


LINE = ("run", "fable@n=6:tell", "--server", "picky", *TOY, "--accel", "fable_head", "--accel", "fable_again")


@pytest.mark.parametrize("more", [(), ("--until", "ci=40")], ids=["all at once", "in batches"])
def test_an_arm_that_is_refused_when_it_is_asked_leaves_the_others_alone(
    picky: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Picky, "refused", ("fable_head",))
    code, said = ask(*LINE, *more, "--out", "one")
    assert (
        code == 3 and "refused, did not run: arm fable_head: this model cannot do fable_head: its layers differ" in said
    )
    assert "continue:" not in said
    report = json.loads((picky / "one" / "report.json").read_text("utf-8"))
    totals = {row["arm"]: row["n_answered"] for row in report["totals"]}
    assert totals["dense"] > 0 and totals["fable_again"] == totals["dense"] and totals["fable_head"] == 0
    monkeypatch.setattr(Picky, "refused", ())
    code, said = ask(*LINE, *more, "--out", "one")
    assert code == 0 and "refused" not in said, "what the server can do after all is asked then"


def test_a_server_that_refuses_the_baseline_ends_the_run(picky: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picky, "refused", ("dense", "fable_head", "fable_again"))
    code, said = ask(*LINE, "--out", "one")
    assert code == 1 and "this model cannot do" in said
