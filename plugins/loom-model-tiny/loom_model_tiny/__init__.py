"""loom-tiny as package data. Knows where its files lie; loads nothing."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"


def path() -> Path:
    """The folder that holds the model: config, weights (safetensors), tokenizer, chat template, recipe."""
    return Path(__file__).parent / "data"


def quickstart() -> Path:
    """The suite that `loom run` runs when nothing is named."""
    return Path(__file__).parent / "quickstart.toml"
