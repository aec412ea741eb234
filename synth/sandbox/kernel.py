"""The calls of the Linux kernel that Python has no function for: namespaces, mounts, capabilities, Landlock, seccomp.

Each raises OSError with the kernel's reason; who calls decides whether a layer may be missing. Numbers are of the
kernel's interface, which does not change: include/uapi/linux/{sched,mount,prctl,landlock,seccomp,filter}.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from functools import cache
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3 = (56, 220), 435
_NAMESPACES = 0x7E020000
"""Flags of clone(2) for new namespaces."""
_SOCKETPAIR = (53, 199)
_SOCK_STREAM, _SOCK_TYPES = 1, 0xF
_READ_FILE, _READ_DIR, _EXECUTE = 4, 8, 1

DENIED: dict[str, tuple[int, int]] = {
    # name: number on x86_64, on aarch64; -1: there is none
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "ptrace": (101, 117),
    "execve": (59, 221), "execveat": (322, 281), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "setns": (308, 268), "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kexec_load": (246, 104), "reboot": (169, 142),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "swapon": (167, 224),
    "acct": (163, 89), "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "quotactl": (179, 60), "syslog": (103, 116),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "memfd_create": (319, 279), "personality": (135, 92),
    "memfd_secret": (447, 447), "io_uring_register": (427, 427), "fspick": (433, 433), "open_tree_attr": (467, 467),
    "pidfd_send_signal": (424, 424), "kexec_file_load": (320, 294), "fanotify_init": (300, 262), "kcmp": (312, 272),
    "vhangup": (153, 58), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1),
}  # fmt: skip
"""System calls that a program has no use for; they fail with EPERM."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def unshare(flags: int) -> None:
    """Leaves the namespaces that `flags` name for new ones; of processes, that is for the children to come."""
    _checked(_libc.unshare(flags), "unshare")


def clone(flags: int) -> int:
    """fork(2) into new namespaces: 0 in the child, which is the first process of a namespace of processes.

    Python's own hooks for forks are not run, so this process has to have a single thread.
    """
    number = _CLONE[0 if platform.machine() == "x86_64" else 1]
    return _checked(_libc.syscall(number, ctypes.c_ulong(flags | signal.SIGCHLD), 0, 0, 0, 0), "clone")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2)."""
    names = (source.encode(), target.encode(), kind.encode() or None)
    result = _libc.mount(*names, ctypes.c_ulong(flags), options.encode() or None)
    _checked(result, f"mount {kind or source} at {target}")


def enter_root(folder: str) -> None:
    """Makes `folder`, which has to be a mount, the root of this mount namespace, and lets go of the old one."""
    os.chdir(folder)
    number = _PIVOT_ROOT[platform.machine()]
    _checked(_libc.syscall(number, b".", b"."), "pivot_root")  # the old root lies over the new one, and is taken off
    _checked(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def _prctl(what: str, option: int, *values: int) -> None:
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *padded), f"prctl {what}")


def die_with_parent() -> None:
    """SIGKILL for this process when its parent ends; to be asked for after the last change of identity."""
    _prctl("PDEATHSIG", _PR_SET_PDEATHSIG, 9)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ended, so that it can wait for them."""
    _prctl("SUBREAPER", _PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    """No program that is executed from here on gains anything."""
    _prctl("NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def stay_dumpable() -> None:
    """Keeps /proc/self writable for this process after a change of identity."""
    _prctl("DUMPABLE", _PR_SET_DUMPABLE, 1)


def drop_capabilities() -> None:
    """Gives up all capabilities; for good, if no new privileges can be gained."""
    header = struct.pack("Ii", 0x20080522, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def landlock_version() -> int:
    """The version of Landlock's interface; 0: the kernel has none, or it is off."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))))


def landlock_rules(readable: list[str], writable: list[str]) -> int:
    """A descriptor of rules: files below these folders, no TCP, no signals to processes outside. Raises OSError.

    Made once: `landlock` confines a process by them.
    """
    version = landlock_version()
    if not version:
        raise OSError(95, "Landlock is not there")
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    files = (1 << rights) - 1
    network = 3 if version >= 4 else 0
    scopes = 3 if version >= 6 else 0  # abstract sockets, signals
    attributes = struct.pack("QQQ", files, network, scopes)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _checked(_libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0), "landlock")
    for folder in [*readable, *writable]:
        if not os.path.exists(folder):
            continue
        allowed = files & ~_EXECUTE if folder in writable else _READ_FILE | _READ_DIR
        if not os.path.isdir(folder):
            allowed &= _READ_FILE
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed, descriptor)
        added = _libc.syscall(_LANDLOCK_ADD, ctypes.c_int(rules), 1, rule, 0)
        os.close(descriptor)
        _checked(added, f"landlock rule for {folder}")
    return rules


def landlock(rules: int) -> None:
    """Confines this process, and what it starts, by rules. Needs `no_new_privileges` before it."""
    _checked(_libc.syscall(_LANDLOCK_RESTRICT, ctypes.c_int(rules), 0), "landlock_restrict_self")


def filter_calls() -> None:
    """Lets the calls in DENIED, and those of another architecture, fail from here on. Raises OSError."""
    result = _libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(2), filter_program(), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _checked(result, "seccomp")


@cache
def filter_program() -> Any:
    """The filter as the kernel takes it (a `sock_fprog`); made once, before the forks. Raises OSError."""
    machine = platform.machine()
    if machine not in _AUDIT_ARCH:
        raise OSError(95, f"no table of system calls for {machine}")
    column = 0 if machine == "x86_64" else 1
    numbers = sorted({row[column] for row in DENIED.values() if row[column] >= 0})
    # A classic BPF program: load the architecture, then the number, and compare with each.
    load, equal, at_least, has_bits, only_bits, answer = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    allow, deny, no_such_call, kill = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
    code = [(load, 0, 0, 4), (equal, 1, 0, _AUDIT_ARCH[machine]), (answer, 0, 0, kill), (load, 0, 0, 0)]
    if machine == "x86_64":
        code += [(at_least, 0, 1, 0x40000000), (answer, 0, 0, deny)]  # the x32 calls have other numbers
    code += [(equal, 0, 1, _CLONE3), (answer, 0, 0, no_such_call)]  # its flags cannot be seen; clone is tried instead
    for position, number in enumerate(numbers):
        code.append((equal, len(numbers) - position + 7, 0, number))
    code += [(equal, 0, 2, _CLONE[column]), (load, 0, 0, 16), (has_bits, 5, 4, _NAMESPACES)]
    # asyncio wants a pair of streams; one of a pair of datagram sockets could send to any other socket's address.
    code += [(equal, 0, 3, _SOCKETPAIR[column]), (load, 0, 0, 24), (only_bits, 0, 0, _SOCK_TYPES)]
    code += [(equal, 0, 1, _SOCK_STREAM), (answer, 0, 0, allow), (answer, 0, 0, deny)]
    instructions = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(program, len(program))
    pointer.instructions = buffer  # type: ignore[attr-defined]  # it lives as long as what points to it
    return pointer
