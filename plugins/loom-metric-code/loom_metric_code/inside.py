"""What the confined child does: puts up its walls, splits into the judge and the answer, and lets them work.

Standard input: one JSON line with the limits and what may be read; then, once it has said `ready`, one JSON line with
prompt, answer, tests and entry. Standard output: `ready` or `unconfined WHY`, then the judge's verdict as a JSON
line. The answer's process is split off before the tests are read, and shares nothing with the judge but two pipes.
What either prints goes nowhere. Started by `process` as `python -I -S inside.py`. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing costs more than the rest of the child
    from typing import Any


sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from loom_metric_code import answer, audit, carry, judge, syscalls, walls  # noqa: E402

del sys.path[0]


def _line(source: int) -> dict[str, Any]:
    """A JSON line, read to its end and not a byte further."""
    said = b""
    while not said.endswith(b"\n") and (piece := os.read(source, 1)):
        said += piece
    return dict(json.loads(said))


def _rest(source: int) -> dict[str, Any]:
    pieces = []
    while piece := os.read(source, 1 << 16):
        pieces.append(piece)
    return dict(json.loads(b"".join(pieces)))


def _shut(kept: tuple[int, ...], nowhere: int) -> None:
    """Close every descriptor but these; 0, 1 and 2 lead nowhere."""
    for descriptor in range(64):
        if descriptor in kept:
            continue
        if descriptor < 3:
            os.dup2(nowhere, descriptor)
        elif descriptor != nowhere:
            with contextlib.suppress(OSError):
                os.close(descriptor)
    os.close(nowhere)


def _confine(rule: str, shown: list[str]) -> None:
    if rule == "kernel":
        syscalls.install()
    else:
        audit.install(shown)


def _stand(order: dict[str, Any]) -> str:
    """The walls that judge and answer share. Raises OSError."""
    shown = [*order["library"], *order["shown"]]
    if order["confine"] == "audit" and sys.platform != "linux":
        words = walls.another_user()
    else:
        words = walls.stand(os.getcwd(), shown, order["library"][0])
    walls.limit(int(order["seconds"]), int(order["memory_bytes"]))
    return words


def main() -> None:
    """Read the order, confine, split, judge, say how it ended."""
    order = _line(0)
    sys.path[:] = order["path"]
    sys.dont_write_bytecode = True
    _builtins_of_site()
    said = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        words = _stand(order)
        child, requests, replies = _split(order, nowhere)
        told = carry.receive(replies)
        if told != "confined":
            raise OSError(told)
        texts = os.dup(0)
        _shut((said, texts, requests, replies), nowhere)
        _confine(order["confine"], order["library"])
    except (OSError, carry.Closed, carry.NotPlain) as error:
        os.write(said, f"unconfined {error or 'the answer has no process'}\n".encode())
        return
    os.write(said, f"ready {words}\n".encode())
    verdict = judge.judge(_rest(texts), judge.Link(requests, replies, child))
    os.write(said, json.dumps(verdict).encode() + b"\n")
    os._exit(0)


def _split(order: dict[str, Any], nowhere: int) -> tuple[int, int, int]:
    """Make the answer's process: its id, and where the judge writes requests and reads replies."""
    requests, ask = os.pipe()
    tell, replies = os.pipe()
    child = os.fork()
    if child:
        os.close(requests)
        os.close(replies)
        return child, ask, tell
    _shut((requests, replies), nowhere)
    try:
        if sys.platform == "linux":
            walls.end_with_parent()
        _confine(order["confine"], order["library"])
        told = "confined"
    except OSError as error:
        told = str(error)
    carry.send(replies, told)
    try:
        answer.serve(requests, replies)
    finally:
        os._exit(0)


def _builtins_of_site() -> None:
    """`exit`, `quit` and their like, which `site` would have made."""
    import site

    site.setquit()
    site.sethelper()


if __name__ == "__main__":
    main()
