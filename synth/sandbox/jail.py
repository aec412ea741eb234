"""What the fork server shuts itself into before it runs anything: namespaces of its own, and a root with little in it.

The root is a tmpfs in a private mount namespace, with Python's standard library and the system's shared libraries bound
read-only at their own paths, so that what was not imported before still can be, though the real path may lie where the
program's user cannot go. Nothing is mounted outside; everything is gone with the last process.
"""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig

from gristmill.synth.sandbox import kernel

_MOUNT_POINT = "/sys"
"""A folder that every system has, and under which lies nothing that is bound."""
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV


def leave() -> bool:
    """Leaves the machine's network, host name and mounts for namespaces of its own. Returns whether that is allowed.

    As root directly; else as the root of a user namespace of its own.
    """
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS
    uid, gid = os.getuid(), os.getgid()
    try:
        if uid:
            kernel.unshare(flags | kernel.CLONE_NEWUSER)
            map_identity(uid, gid, os.open("/proc", os.O_PATH))
        else:
            kernel.unshare(flags)
    except OSError:
        return False
    return True


def map_identity(uid: int, gid: int, proc: int) -> None:
    """Makes this process the root of its user namespace, which is `uid` and `gid` outside. `proc`: /proc, opened."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def standard_library() -> list[str]:
    """The folders of Python's own modules, at real paths. A virtual environment has none: they are its base's."""
    bases = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    paths = sysconfig.get_paths(vars=bases)
    return sorted({os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib")})


def readable_folders() -> list[str]:
    """What the standard library needs, at real paths, none within another."""
    folders = {*standard_library(), *map(os.path.realpath, _LIBRARIES)}
    folders = {folder for folder in folders if os.path.isdir(folder)}
    return sorted(folder for folder in folders if not any(folder.startswith(f"{other}/") for other in folders))


def _installed() -> set[str]:
    """Folders of installed packages, which are no part of the standard library, and nobody's business: this Python's,
    and those of its base, whose own path may not name them."""
    libraries = standard_library()
    own = {*libraries, *(f"{library}/lib-dynload" for library in libraries)}
    return {*map(os.path.realpath, sys.path), *(f"{library}/site-packages" for library in libraries)} - own


def enter(folders: list[str]) -> None:
    """Makes the jail the root of this mount namespace. Raises OSError; RuntimeError for a Python that lies below /tmp,
    which is every program's own."""
    if below := [folder for folder in folders if f"{folder}/".startswith("/tmp/")]:
        raise RuntimeError(f"programs have a /tmp of their own, and Python's standard library lies there: {below[0]}")
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    root = _MOUNT_POINT
    kernel.mount("jail", root, "tmpfs", _FLAGS, "size=1m,nr_inodes=2000,mode=755")
    for folder in folders:
        os.makedirs(root + folder, exist_ok=True)
        _bind(folder, root + folder, kernel.MS_NODEV)
    for packages in _installed():
        if os.path.isdir(root + packages):
            kernel.mount("hidden", root + packages, "tmpfs", _FLAGS | kernel.MS_RDONLY, "size=4k,mode=755")
    for link in _LIBRARIES:
        if os.path.islink(link) and not os.path.lexists(root + link):
            os.symlink(os.readlink(link), root + link)
    os.mkdir(f"{root}/dev")
    for device in _DEVICES:
        with contextlib.suppress(FileNotFoundError):
            os.close(os.open(root + device, os.O_CREAT | os.O_WRONLY, 0o666))
            _bind(device, root + device, 0)
    os.mkdir(f"{root}/tmp")
    os.chmod(f"{root}/tmp", 0o1777)
    kernel.mount("none", root, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | _FLAGS)
    kernel.enter_root(root)


def _bind(source: str, target: str, more: int) -> None:
    """Binds read-only. What lies on other mounts within stays out, unless the kernel insists on it."""
    try:
        kernel.mount(source, target, "", kernel.MS_BIND)
    except OSError:
        kernel.mount(source, target, "", kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("none", target, "", kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | more)
