"""Records of upstream files, checked field by field. Part of loom's public interface."""

from __future__ import annotations

from loom_core.data.literals import CONVERSIONS as CONVERSIONS, Template as Template, constants as constants
from loom_core.data.records import (
    Check as Check,
    Record as Record,
    anything as anything,
    either as either,
    listed as listed,
    mapping as mapping,
    number as number,
    one_of as one_of,
    optional as optional,
    problem as problem,
    read_records as read_records,
    text as text,
    texts as texts,
    truth as truth,
    whole as whole,
)
