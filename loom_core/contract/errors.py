"""The five ways a run can fail, each with a hint. Knows nothing but text.

Every message answers four questions: what is wrong, where, why, and what to do next. The command line prints
it without a traceback; anything that is not a `LoomError` is a bug in loom and keeps its traceback.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class LoomError(Exception):
    """A failure that a user can act on.

    what: the one-line statement. where: file, option or record. why: the cause. hint: the next step.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.hint = what, where, why, hint

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {label}: {text}" for label, text in self.parts() if text]
        return "\n".join(lines)

    def parts(self) -> list[tuple[str, str]]:
        """The labelled lines below the statement, in the order they are printed."""
        return [("where", self.where), ("why", self.why), ("next", self.hint)]

    def to_json(self) -> dict[str, str]:
        """The error as a record; `from_json` is its inverse."""
        return {
            "type": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "hint": self.hint,
        }

    @staticmethod
    def from_json(record: dict[str, str]) -> LoomError:
        """Rebuild an error that crossed a process border, as its own class."""
        kinds = {kind.__name__: kind for kind in (UsageError, PluginError, DataError, RunError, ModelError)}
        kind = kinds.get(record.get("type", ""), LoomError)
        return kind(
            record["what"],
            where=record.get("where", ""),
            why=record.get("why", ""),
            hint=record.get("hint", ""),
        )


class UsageError(LoomError):
    """A name, option or combination that cannot be meant. Exit code 2."""

    exit_code = 2


class PluginError(LoomError):
    """A plugin that cannot be imported or breaks its contract."""


class DataError(LoomError):
    """A data file that is missing, altered or malformed."""


class RunError(LoomError):
    """A run folder that cannot be read, written or continued."""


class ModelError(LoomError):
    """A model that cannot be opened, or that cannot do what is asked of it."""


SHOWN = 16
"""Names that a hint lists where none is near."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint naming the known names closest to `name`, or the first of them where none is close."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    more = [f"… ({len(known) - SHOWN} more)"] if len(known) > SHOWN + 1 else known[SHOWN:]
    return "known: " + ", ".join([*known[:SHOWN], *more]) if known else "none is installed"


_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close programs that hold many files open",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOENT: "was its folder moved or deleted? choose another",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that can be written",
    errno.EPERM: "choose a folder that can be written",
}


def advice(error: OSError) -> str:
    """What a user can do about a refusal of the operating system."""
    return _ADVICE.get(error.errno or 0, "see what the system says of this file or device")


def refusal(error: OSError) -> RunError:
    """A refusal of the operating system that no part of loom expected, as a message."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return RunError(
        "the operating system refused",
        where=" and ".join(names),
        why=error.strerror or str(error) or type(error).__name__,
        hint=advice(error),
    )
