"""The /tmp of programs: a file system of its own, empty when a program begins.

A mount for each program costs as much as a third of a fork. So one nursery's programs, which run one after the other,
have one, and the nursery empties it between them; it is trusted only as long as nothing of a program is left in it.
"""

from __future__ import annotations

import os
import shutil

from gristmill.synth.sandbox import kernel

FOLDER = "/tmp"
_MODE = 0o1777
_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
_FILES = 1000


def mount(size: int) -> None:
    """Mounts an empty one of `size` bytes in this process's mount namespace, out of sight of others. Raises OSError."""
    kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("scratch", FOLDER, "tmpfs", _FLAGS, f"size={size},nr_inodes={_FILES},mode={_MODE:o}")


class Shared:
    """The one of a nursery, in a mount namespace of the nursery's own: the tests' process does not see it.

    `clean`: a program can have it. Once something is left that cannot be removed, it never is again.
    """

    def __init__(self, size: int) -> None:
        try:
            kernel.unshare(kernel.CLONE_NEWNS)
            mount(size)
        except OSError:  # not privileged to: then each program has its own
            self.clean = False
        else:
            self.clean = self._is_clean()

    def empty(self) -> None:
        """Removes what a program left, after it and all that it started have ended."""
        if not self.clean or self._is_clean():
            return
        try:
            for entry in os.scandir(FOLDER):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        except (OSError, RecursionError):  # folders that are locked, or deeper than a path can be
            self.clean = False
        else:
            self.clean = self._is_clean()

    @staticmethod
    def _is_clean() -> bool:
        """Whether there is no file, and none of what could be written to the folder itself."""
        return not os.listdir(FOLDER) and os.stat(FOLDER).st_mode & 0o7777 == _MODE and not os.listxattr(FOLDER)
