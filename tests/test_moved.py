"""Imports of before still work, say what to write now, and cost nothing where they are not used."""

from __future__ import annotations

import importlib
import importlib.machinery
import subprocess
import sys
import warnings

import pytest

from loom_core import moved

OLD = [f"loom_core.{name}" for name in (*moved.HOMES, *moved.ELSEWHERE)]


@pytest.mark.parametrize("name", OLD)
def test_an_old_module_hands_out_its_names_and_warns(name: str) -> None:
    new = moved.home(name)
    assert new is not None
    real = importlib.import_module(new)
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"{name} has moved: import from loom_"):
        module = importlib.import_module(name)
    public = [one for one in vars(real) if not one.startswith("_")]
    assert public and all(getattr(module, one) is getattr(real, one) for one in public)
    sys.modules.pop(name, None)


def test_no_old_name_hides_a_module_of_today() -> None:
    for name in (name for name in OLD if name.count(".") == 1):
        spec = importlib.machinery.PathFinder.find_spec(name, importlib.import_module("loom_core").__path__)
        assert spec is None, f"{name} is there: its entry in moved is dead"


def test_another_missing_module_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"loom_core\.nothing"):
        importlib.import_module("loom_core.nothing")


def test_loom_itself_uses_none_of_them() -> None:
    code = "import warnings; warnings.simplefilter('error'); from loom_core import api; print(api.installed().broken)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_name_of_a_thing_is_looked_up_when_it_is_asked_for() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("loom_core.contract.types")
    with pytest.raises(AttributeError, match="Nothing"):
        _ = module.Nothing
