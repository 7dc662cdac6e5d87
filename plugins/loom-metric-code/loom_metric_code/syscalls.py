"""The system calls that a confined process may make, as a seccomp filter: everything else is refused. Linux only.

Only the native 64-bit interface counts: a call of another one (32-bit, x32) ends the process. Calls that are allowed
for some arguments only (opening, fcntl, ioctl, prctl, clone, prlimit64, tgkill) are looked at. Standard library only;
runs in the child, knows no program and no test.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FIRST_ARGUMENT = 0, 4, 16
X32 = 0x40000000
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

ALLOWED = {
    # what is called most stands first: the filter is read from above
    "read": (0, 63), "write": (1, 64), "futex": (202, 98), "mmap": (9, 222), "munmap": (11, 215), "brk": (12, 214),
    "fstat": (5, 80), "newfstatat": (262, 79), "stat": (4, None), "lstat": (6, None), "statx": (332, 291),
    "lseek": (8, 62), "close": (3, 57), "getdents64": (217, 61), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    # memory and threads of its own
    "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233), "set_robust_list": (273, 99),
    "rseq": (334, 293), "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
    "gettid": (186, 178), "sigaltstack": (131, 132), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "restart_syscall": (219, 128), "exit": (60, 93), "exit_group": (231, 94),
    # time, chance and what it may know of itself
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getitimer": (36, 102),
    "setitimer": (38, 103), "alarm": (37, None), "getrandom": (318, 278), "getrusage": (98, 165),
    "getrlimit": (97, 163), "sysinfo": (99, 179), "uname": (63, 160), "getpid": (39, 172), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "wait4": (61, 260),
}  # fmt: skip
"""Calls that are allowed whatever their arguments, with their numbers on x86_64 and aarch64."""
UNKNOWN = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "openat2": 437}
"""Calls that this kernel is said not to have; libraries then use the older ones, whose arguments the filter sees."""

OPEN, OPENAT, FCNTL, IOCTL = (2, None), (257, 56), (72, 25), (16, 29)
PRCTL, CLONE, PRLIMIT, TGKILL = (157, 167), (56, 220), (302, 261), (234, 131)
LARGE_FILE = {"x86_64": 0o100000, "aarch64": 0o400000}
READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
READING |= os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0)
DUPLICATING = (0, 1, 2, 3, 1030)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC: no owner, no signal, no O_ASYNC, no lock."""
DEVICE_CALLS = (0x5401, 0x5450, 0x5451)
"""TCGETS (is this a terminal?), FIONCLEX, FIOCLEX."""
NAMING = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA: names of a thread and of memory."""
THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
"""CLONE_VM, _FS, _FILES, _SIGHAND and _THREAD: what makes a clone a thread of this process and no process."""
THREAD_MAY = THREAD | 0x40000 | 0x80000 | 0x100000 | 0x200000 | 0x400000 | 0x1000000
"""… and what else a thread may ask: SYSVSEM, SETTLS, PARENT_SETTID, CHILD_CLEARTID, DETACHED, CHILD_SETTID."""


def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    """One instruction of a classic BPF program."""
    return struct.pack("HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


ALLOWING, REFUSING = instruction(RETURN, 0, 0, ALLOW), instruction(RETURN, 0, 0, ERRNO | EPERM)
ENDING = instruction(RETURN, 0, 0, KILL)


def _argument(place: int, *, high: bool = False) -> bytes:
    return instruction(LOAD, 0, 0, AT_FIRST_ARGUMENT + 8 * place + 4 * high)


def _one_of(place: int, values: Iterable[int]) -> list[bytes]:
    rows = [_argument(place)]
    for value in values:
        rows += [instruction(JUMP_EQUAL, 0, 1, value), ALLOWING]
    return [*rows, REFUSING]


def _nothing_but(place: int, bits: int) -> list[bytes]:
    return [_argument(place), instruction(JUMP_SET, 0, 1, ~bits), REFUSING, ALLOWING]


def _thread() -> list[bytes]:
    rows = [_argument(0), instruction(JUMP_SET, 0, 1, ~THREAD_MAY), REFUSING]
    return [*rows, instruction(AND, 0, 0, THREAD), instruction(JUMP_EQUAL, 0, 1, THREAD), ALLOWING, REFUSING]


def _own_limits() -> list[bytes]:
    """prlimit64 of this process (0) that sets nothing (both halves of the pointer are 0)."""
    rows: list[bytes] = []
    for load in (_argument(0), _argument(2), _argument(2, high=True)):
        rows += [load, instruction(JUMP_EQUAL, 1, 0, 0), REFUSING]
    return [*rows, ALLOWING]


def kernel_filter(machine: str, process: int) -> bytes:
    """The seccomp program of an architecture for the process of that id: it may signal itself alone.

    Raises OSError for an architecture that it does not know.
    """
    if machine not in ARCHITECTURES:
        raise OSError(f"no system-call filter is written for {machine}")
    architecture, column = ARCHITECTURES[machine]
    rows = [
        instruction(LOAD, 0, 0, AT_ARCHITECTURE),
        instruction(JUMP_EQUAL, 1, 0, architecture),
        ENDING,
        instruction(LOAD, 0, 0, AT_NUMBER),
        instruction(JUMP_GREATER_EQUAL, 0, 1, X32),
        ENDING,
    ]
    for allowed in (numbers[column] for numbers in ALLOWED.values()):
        if allowed is not None:
            rows += [instruction(JUMP_EQUAL, 0, 1, allowed), ALLOWING]
    reading = READING | LARGE_FILE[machine]
    for numbers, block in (
        (OPEN, _nothing_but(1, reading)),
        (OPENAT, _nothing_but(2, reading)),
        (FCNTL, _one_of(1, DUPLICATING)),
        (IOCTL, _one_of(1, DEVICE_CALLS)),
        (PRCTL, _one_of(0, NAMING)),
        (CLONE, _thread()),
        (PRLIMIT, _own_limits()),
        (TGKILL, _one_of(0, (process,))),
    ):
        if (number := numbers[column]) is not None:
            rows += [instruction(JUMP_EQUAL, 0, len(block), number), *block]
    for number in UNKNOWN.values():
        rows += [instruction(JUMP_EQUAL, 0, 1, number), instruction(RETURN, 0, 0, ERRNO | ENOSYS)]
    return b"".join([*rows, REFUSING])


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install() -> None:
    """Put the filter on this process, for good; it must have no new privileges. Raises OSError where it cannot."""
    if sys.platform != "linux":
        raise OSError(f"system-call filters are Linux's; this is {sys.platform}")
    code = kernel_filter(os.uname().machine, os.getpid())
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no system-call filter")
