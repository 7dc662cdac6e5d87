"""Prompts from templates: texts with named fields in braces. Part of loom's public interface."""

from __future__ import annotations

from loom_core.prompting.ownprompt import (
    Piece as Piece,
    fields_of as fields_of,
    filled as filled,
    merged as merged,
    pieces as pieces,
)
