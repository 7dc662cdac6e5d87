"""What a confined process may see and be: its user, its capabilities, its files, its limits. Standard library only.

Runs in the child before any program. Files: Landlock, where the kernel has it, lets it read what is shown and nothing
else; where it has not, or where the new user could not reach the interpreter, a file system of its own holds what is
shown and nothing else. Raises OSError, saying which promise this system cannot keep. Knows no program and no test.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence

NOBODY = 65534
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, SIGKILL = 1, 4, 38, 9
CALLS = {
    "x86_64": {"capset": 126, "capget": 125, "pivot_root": 155},
    "aarch64": {"capset": 91, "capget": 90, "pivot_root": 41},
}
CAPABILITIES_VERSION = 0x20080522
RULESET, ADD_RULE, RESTRICT = 444, 445, 446
FILES_BY_VERSION = ((1, 13), (2, 14), (3, 15), (5, 16))
"""How many kinds of access to files each version of Landlock knows."""
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
NETWORK, SCOPES = (4, 0b11), (6, 0b11)
"""TCP (bind, connect) from version 4; abstract sockets and signals to others from version 6."""
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000
RECURSIVE, PRIVATE, BIND, NO_SETUID, NO_DEVICES, DETACH = 0x4000, 0x40000, 0x1000, 0x2, 0x4, 0x2


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def limit(seconds: int, memory_bytes: int) -> None:
    """Processor time, address space, file size, open files and core dumps of this process and its children."""
    for name, value in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 64 << 20),
    ):
        hard = resource.getrlimit(name)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (most, most))


def open_to_all(path: str) -> bool:
    """Whether any user may read this, by the mode of it and of every folder above it."""
    wanted = 0o005 if os.path.isdir(path) else 0o004
    if os.stat(path).st_mode & wanted != wanted:
        return False
    while path != (path := os.path.dirname(path)):
        if not os.stat(path).st_mode & 0o001:
            return False
    return True


def outermost(paths: Sequence[str]) -> list[str]:
    """Those that exist, without what lies under another of them."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths if os.path.exists(path)}):
        if not any(path.startswith(above + "/") for above in kept):
            kept.append(path)
    return kept


def own_files(folder: str, shown: Sequence[str]) -> None:
    """Enter a file system that holds what is shown, at its own paths, and nothing else; folder: an empty one."""
    library, uid, gid = _library(), os.getuid(), os.getgid()
    _must(library.unshare(NEW_MOUNTS | (0 if os.geteuid() == 0 else NEW_USER)), "files: no namespace of its own")
    if os.geteuid() != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    _mount(library, None, "/", None, RECURSIVE | PRIVATE)
    _mount(library, "tmpfs", folder, "tmpfs", NO_SETUID | NO_DEVICES, b"mode=755,size=1m")
    os.umask(0o022)
    for path in shown:
        target = folder + path
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            open(target, "xb").close()
        _mount(library, os.path.realpath(path), target, None, BIND | RECURSIVE)
    os.chdir(folder)
    _must(library.syscall(_calls()["pivot_root"], b".", b"."), "files: no root folder of its own")
    _must(library.umount2(b".", DETACH), "files: the old root stays")
    os.chdir("/")


def _mount(
    library: ctypes.CDLL, source: str | None, target: str, kind: str | None, flags: int, data: bytes | None = None
) -> None:
    names = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _must(library.mount(*names, ctypes.c_ulong(flags), data), f"files: {target} cannot be mounted")


def _calls() -> dict[str, int]:
    machine = os.uname().machine
    if machine not in CALLS:
        raise OSError(f"the numbers of system calls on {machine} are not known here")
    return CALLS[machine]


def _users() -> tuple[int, ...]:
    return os.getresuid() if sys.platform == "linux" else (os.getuid(), os.geteuid())


def another_user() -> str:
    """Root becomes nobody, without groups; an ordinary user stays. No capability is left. Who it is now, in words."""
    library = _library()
    if 0 in _users():
        try:
            os.setgroups([])
            # Of root, these set the real, the effective and the saved number.
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError as error:
            raise OSError(f"another user: root cannot become uid {NOBODY} here ({error.strerror})") from None
    if 0 in _users() or (os.getuid() == NOBODY and 0 in (os.getgid(), os.getegid())):
        raise OSError("another user: this is still root")
    if sys.platform == "linux":
        no_capabilities(library)
        _must(library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        # A change of user undoes both of these, so they come after it.
        _must(library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "no memory for others")
        end_with_parent()
    return f"uid {os.getuid()}"


def end_with_parent() -> None:
    """Let the kernel end this process when the one that made it ends; a new process has to ask for it anew."""
    _must(_library().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "end with the parent")


def no_capabilities(library: ctypes.CDLL) -> None:
    """Drop every capability of this process and see that none is left."""
    header = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITIES_VERSION, 0), 8)
    _must(library.syscall(_calls()["capset"], header, bytes(24)), "capabilities cannot be dropped")
    left = ctypes.create_string_buffer(24)
    _must(library.syscall(_calls()["capget"], header, left), "capabilities cannot be read")
    if any(left.raw):
        raise OSError("capabilities are left")


def landlock_version() -> int:
    """The version of Landlock in this kernel; 0 without it."""
    return max(0, int(_library().syscall(RULESET, None, 0, 1))) if sys.platform == "linux" else 0


def only_reading(shown: Sequence[str], version: int) -> None:
    """By Landlock: read what is shown, no other file; no TCP and no signal to others where this version knows them."""
    library = _library()
    kinds = next(bits for least, bits in reversed(FILES_BY_VERSION) if version >= least)
    rules = struct.pack(
        "QQQ", (1 << kinds) - 1, *(bits if version >= least else 0 for least, bits in (NETWORK, SCOPES))
    )
    size = 24 if version >= SCOPES[0] else 16 if version >= NETWORK[0] else 8
    ruleset = _must(library.syscall(RULESET, rules, size, 0), "files: Landlock takes no rules")
    for path in shown:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", READ_FILE | READ_FOLDER if os.path.isdir(path) else READ_FILE, place)
        _must(library.syscall(ADD_RULE, ruleset, 1, rule, 0), f"files: Landlock takes no rule for {path}")
        os.close(place)
    _must(library.syscall(RESTRICT, ruleset, 0), "files: Landlock does not hold this process")
    os.close(ruleset)


def stand(folder: str, shown: Sequence[str], needed: str) -> str:
    """Put up the walls: files, user, capabilities. What they are, in words.

    shown: folders and files that may be read; needed: the one without which Python cannot work. Raises OSError.
    """
    if sys.platform != "linux":
        raise OSError(f"files: nothing here hides them on {sys.platform}")
    shown, version, words = outermost(shown), landlock_version(), []
    if not version or (os.geteuid() == 0 and not all(open_to_all(path) for path in shown)):
        own_files(folder, shown)
        words.append("own root folder")
    words.append(another_user())
    if version:
        only_reading(shown, version)
        words.append(f"Landlock {version}")
    try:
        os.listdir(needed)
    except OSError:
        raise OSError(f"files: uid {os.getuid()} cannot read Python's library, {needed}") from None
    return ", ".join(words)
