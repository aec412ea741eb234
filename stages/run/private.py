"""Folders that no other user of this machine can reach, for what would let its finder run code as you.

Ray opens its session folder to everybody (chmod 0777, also where it was closed) and keeps there the code that the next
job runs, so privacy has to come from a folder above it. `weaknesses` says what stands against it: the owner, the mode
and the links of every folder on the way. A socket's path has at most 107 bytes, so Ray's folder has to be short.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST_SOCKET = 107
"""Bytes: `sockaddr_un` has 108 with the closing zero (unix(7))."""
_OF_RAY = "/session_2026-11-28_05-47-52_711575_4194304/sockets/dash_MetricsHead"
LONGEST_RAY_FOLDER = LONGEST_SOCKET - len(_OF_RAY)
"""Bytes of the path that Ray may be given as its temporary folder."""
LINKS = 40
"""Links followed on the way to a folder, as many as Linux follows."""


class NotPrivate(OSError):
    """A folder that others can change; the message says where and what to do."""


def weaknesses(folder: Path) -> list[str]:
    """Why others could read or change what lies in `folder`, an absolute path; empty: they cannot.

    The folder itself has to be this user's and closed to others. Of every folder above it, links followed, the owner
    has to be this user or the system, and nobody else may be able to replace what lies in it (sticky folders such as
    /tmp are fine: there the owner of each entry decides).
    """
    trusted = {0, os.getuid(), os.stat("/").st_uid}  # in a user namespace "/" may be the outer root's
    faults: list[str] = []
    here, ahead, links = Path("/"), list(folder.parts[1:]), 0
    while True:
        try:
            about = here.lstat()
        except OSError as error:
            return [*faults, f"{here}: {error.strerror}"]
        if about.st_uid not in trusted:
            faults.append(f"{here} belongs to {_user(about.st_uid)}")
        if stat.S_ISLNK(about.st_mode):
            links += 1
            if links > LINKS:
                return [*faults, f"{folder}: more than {LINKS} links"]
            target = Path(os.path.normpath(here.parent / os.readlink(here)))
            here, ahead = Path("/"), [*target.parts[1:], *ahead]
            continue
        faults += _open_to(here, about)
        if not ahead:
            break
        here = here / ahead.pop(0)
    if about.st_uid != os.getuid() and about.st_uid in trusted:
        faults.append(f"{here} belongs to {_user(about.st_uid)}")
    if not stat.S_ISDIR(about.st_mode):
        faults.append(f"{here} is no folder")
    elif about.st_mode & 0o077:
        faults.append(f"{here} has mode {stat.S_IMODE(about.st_mode):04o}, not 0700")
    return faults


def _open_to(folder: Path, about: os.stat_result) -> list[str]:
    if about.st_mode & stat.S_ISVTX:
        return []
    if about.st_mode & stat.S_IWOTH:
        return [f"everybody can replace what lies in {folder} (mode {stat.S_IMODE(about.st_mode):04o})"]
    if about.st_mode & stat.S_IWGRP and (others := _others_in(about.st_gid)):
        return [f"{others} can replace what lies in {folder} (mode {stat.S_IMODE(about.st_mode):04o})"]
    return []


def _others_in(gid: int) -> str:
    """Somebody else of this group, for a message; empty where there is nobody, as in a user's own group."""
    try:
        name, members = grp.getgrgid(gid).gr_name, set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        return f"group {gid}"
    members |= {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}
    others = members - {_user(os.getuid()), "root"}
    return f"{sorted(others)[0]} (group {name})" if others else ""


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def new_folder() -> Path:
    """A new private folder in TMPDIR or /tmp, whose `r` is short enough for Ray. Raises NotPrivate."""
    reasons: list[str] = []
    for base in dict.fromkeys([tempfile.gettempdir(), "/tmp"]):
        try:
            folder = Path(tempfile.mkdtemp(prefix="grist-ray-", dir=base))  # 0700 and this user's, by its contract
        except OSError as error:
            reasons.append(f"{base}: {error.strerror}")
            continue
        faults = weaknesses(folder)
        if len(os.fsencode(folder / "r")) > LONGEST_RAY_FOLDER:
            faults.append(f"{folder / 'r'} is too long for Ray's sockets (at most {LONGEST_RAY_FOLDER} bytes)")
        if not faults:
            return folder
        folder.rmdir()
        reasons += faults
    raise NotPrivate(
        f"no folder for Ray that is closed to other users: {'; '.join(reasons)}. Set TMPDIR to a short folder of yours"
    )


@contextmanager
def locked_folder() -> Iterator[Path]:
    """`new_folder` for as long as this process lives; what killed processes left behind is removed on the way."""
    folder = new_folder()
    with (folder / "unlocked").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "unlocked").rename(folder / "lock")  # nobody ever sees a lock that is not held
        _sweep(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(mine: Path) -> None:
    """Removes folders of this user whose process is gone: nobody holds their lock any more."""
    for folder in mine.parent.glob("grist-ray-*"):
        with suppress(OSError):  # another's, or just removed
            if folder == mine or folder.lstat().st_uid != os.getuid() or not (folder / "lock").is_file():
                continue
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
