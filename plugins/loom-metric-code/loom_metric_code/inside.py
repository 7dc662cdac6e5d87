"""What runs inside the confined process: takes limits, shuts every door, then runs the program. Standard library only.

Order on standard input (one JSON line): token, program (path), seconds, memory_bytes, confine. On standard output it
says `ready` once confined, then the token where the program ran to its end, else `raised NAME`. The program's own
output goes nowhere. Started by `process` as `python -I inside.py`; knows nothing of loom.

Kernel rule: a seccomp filter answers EPERM to sockets, new processes, other programs, signals, tracing and every call
that could change a file; threads may be made. Reading files is allowed: Python imports from them.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import runpy
import struct
import sys

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 4, 22, 38
SECCOMP_MODE_FILTER = 2
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = 1, 38
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
AT_NUMBER, AT_ARCHITECTURE, AT_FIRST_ARGUMENT = 0, 4, 16
CLONE_THREAD = 0x00010000
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
X32 = 0x40000000

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
DENIED = {
    # sockets
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # processes and signals
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setpgid": (109, 154),
    "setsid": (112, 157), "setpriority": (141, 140), "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119),
    "prlimit64": (302, 261), "setrlimit": (160, 164),
    # files
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "link": (86, None), "linkat": (265, 37), "symlink": (88, None),
    "symlinkat": (266, 36), "mknod": (133, None), "mknodat": (259, 33), "chmod": (90, None), "fchmod": (91, 52),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55),
    "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "utimensat": (280, 88),
    "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    # the system
    "mount": (165, 40), "umount2": (166, 39), "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51),
    "pivot_root": (155, 41), "bpf": (321, 280), "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "reboot": (169, 142), "init_module": (175, 105),
    "finit_module": (313, 273), "kexec_load": (246, 104), "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180),
}  # fmt: skip
"""System calls that are refused, with their numbers on x86_64 and aarch64."""
UNKNOWN = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "clone3": 435, "openat2": 437}
"""Calls that this kernel is said not to have; libraries then use the older ones, whose arguments the filter sees."""
OPEN, OPENAT, CLONE = (2, None), (257, 56), (56, 220)

AUDITED = (
    "socket.", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "os.killpg",
    "subprocess.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "os.chown", "os.utime", "os.setxattr", "os.removexattr", "shutil.", "ctypes.", "pty.", "resource.setrlimit",
    "signal.pthread_kill", "sys.remote_exec", "tempfile.",
)  # fmt: skip


def instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    """One instruction of a classic BPF program."""
    return struct.pack("HBBI", code, if_true, if_false, value & 0xFFFFFFFF)


def kernel_filter(machine: str) -> bytes:
    """The seccomp program of an architecture. Raises OSError for one that it does not know."""
    if machine not in ARCHITECTURES:
        raise OSError(f"no system-call filter is written for {machine}")
    architecture, column = ARCHITECTURES[machine]
    refuse, missing = instruction(RETURN, 0, 0, ERRNO | EPERM), instruction(RETURN, 0, 0, ERRNO | ENOSYS)
    rows = [
        instruction(LOAD, 0, 0, AT_ARCHITECTURE),
        instruction(JUMP_EQUAL, 1, 0, architecture),
        instruction(RETURN, 0, 0, KILL),
        instruction(LOAD, 0, 0, AT_NUMBER),
        instruction(JUMP_GREATER_EQUAL, 0, 1, X32),
        refuse,
    ]
    for number in UNKNOWN.values():
        rows += [instruction(JUMP_EQUAL, 0, 1, number), missing]
    for denied in (numbers[column] for numbers in DENIED.values()):
        if denied is not None:
            rows += [instruction(JUMP_EQUAL, 0, 1, denied), refuse]
    for numbers, argument in ((OPEN, 1), (OPENAT, 2)):
        if (opening := numbers[column]) is not None:
            rows += [
                instruction(JUMP_EQUAL, 0, 4, opening),
                instruction(LOAD, 0, 0, AT_FIRST_ARGUMENT + 8 * argument),
                instruction(JUMP_SET, 0, 1, WRITING),
                refuse,
                instruction(RETURN, 0, 0, ALLOW),
            ]
    clone = CLONE[column]
    assert clone is not None
    rows += [
        instruction(JUMP_EQUAL, 0, 3, clone),
        instruction(LOAD, 0, 0, AT_FIRST_ARGUMENT),
        instruction(JUMP_SET, 1, 0, CLONE_THREAD),
        refuse,
        instruction(RETURN, 0, 0, ALLOW),
    ]
    return b"".join(rows)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine_by_kernel() -> None:
    """Install the filter for this process, for good. Raises OSError where the kernel does not take it."""
    if sys.platform != "linux":
        raise OSError(f"system-call filters are Linux's; this is {sys.platform}")
    code = kernel_filter(platform.machine())
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    library.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    refused = library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if refused or library.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no system-call filter")


def confine_by_audit() -> None:
    """Refuse by Python's audit events what the filter would refuse. Code that reaches the C level gets around it."""

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            mode, flags = arguments[1], arguments[2]
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & WRITING)
            if writes:
                raise PermissionError("writing files is not allowed here")
        elif event.startswith(AUDITED):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(look)


def limit(seconds: int, memory_bytes: int) -> None:
    """Processor time, address space, file size, open files and core dumps; new processes where the user is not root."""
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


def main() -> None:
    """Read the order, confine this process, run the program, say how it ended."""
    order = json.loads(sys.stdin.readline())
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    limit(int(order["seconds"]), int(order["memory_bytes"]))
    try:
        confine_by_kernel() if order["confine"] == "kernel" else confine_by_audit()
    except OSError as error:
        os.write(answer, f"unconfined {error}\n".encode())
        return
    os.write(answer, b"ready\n")
    try:
        runpy.run_path(order["program"], run_name="__main__")
    except BaseException as error:  # noqa: BLE001 - whatever the program raises, SystemExit too, is its failure
        os.write(answer, f"raised {type(error).__name__}\n".encode())
        return
    os.write(answer, order["token"].encode())


if __name__ == "__main__":
    main()
