"""The README's tables of options say what the options say of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loom_server_hf.plugin import HFModelOptions, HFServerOptions

from loom_core.contract.options import describe

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("options", [HFServerOptions, HFModelOptions])
def test_every_option_is_in_the_readme(options: Any) -> None:
    lines = README.read_text("utf-8").splitlines()
    for row in describe(options):
        assert f"| `{row['name']}` | `{row['default']}` | {row['help']} |" in lines
