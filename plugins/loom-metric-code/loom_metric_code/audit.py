"""The weaker rule, by Python's audit events, for systems without system-call filters. Standard library only.

It refuses what the filter and Landlock would refuse, as far as Python announces it; code that reaches the C level gets
around it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = (
    "socket.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "os.killpg", "subprocess.",
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.ch", "os.utime",
    "os.setxattr", "os.removexattr", "os.getxattr", "os.listxattr", "shutil.", "ctypes.", "pty.", "resource.setrlimit",
    "resource.prlimit", "signal.pthread_kill", "fcntl.", "sys.remote_exec", "tempfile.", "syslog.", "sqlite3.",
)  # fmt: skip
LISTING = ("open", "os.listdir", "os.scandir")


def install(shown: Sequence[str]) -> None:
    """Refuse, in this process and for good, everything but reading what is shown."""
    places = tuple(os.path.realpath(path) for path in shown)
    real, parents = os.path.realpath, tuple(place.rstrip("/") + "/" for place in places)

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event in LISTING:
            path = arguments[0]
            if event == "open":
                mode, flags = arguments[1], arguments[2]
                if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITING):
                    raise PermissionError("writing files is not allowed here")
            where = real(os.fsdecode(path)) if isinstance(path, (str, bytes)) else ""
            if where not in places and not where.startswith(parents):
                raise PermissionError("reading this is not allowed here")
        elif event.startswith(REFUSED):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(look)
