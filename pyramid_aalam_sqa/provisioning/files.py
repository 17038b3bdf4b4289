"""Opens files in folders that belong to another user of the system, who may have planted links.

root works with the rights of the folder's owner there, so that nothing planted in the folder makes
it do more than the owner can do without it.
"""

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..exceptions import ProvisioningError

# Linux needs no right to read a folder for it.
FOLDER_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: a planted pipe would have psqa wait for ever.
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MOST_LINKS = 40
ROOT = 0


@contextmanager
def open_folder(path: Path) -> Iterator[tuple[int, int]]:
    """Lend a descriptor of the folder at the absolute *path*, and the user who controls it.

    That is the owner of the last folder on the way that does not belong to root, else root. A link
    on the way is followed if root has made it, or the user who runs psqa. Raises ProvisioningError
    for another one, and OSError when there is no such folder.
    """
    names = list(path.parts[1:])
    links = 0
    owner = ROOT
    folder = os.open("/", FOLDER_FLAGS)
    try:
        while names:
            name = names.pop(0)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = inner
                owner = os.fstat(folder).st_uid or owner
                continue
            links += 1
            if not _may_be_followed(found) or links > MOST_LINKS:
                msg = f"{path}: {name} is a link of another user, which psqa does not follow."
                raise ProvisioningError(msg)
            target = Path(os.readlink(name, dir_fd=folder))
            names = [*target.parts, *names]
            if target.is_absolute():
                names.pop(0)
                os.close(folder)
                folder = os.open("/", FOLDER_FLAGS)
        yield folder, owner
    finally:
        os.close(folder)


@contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Run the block with the rights of the user with the number *user*, if root runs psqa."""
    if os.geteuid() != ROOT or user == ROOT:
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    try:
        known = pwd.getpwuid(user)
        own_group, own_groups = known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid)
    except KeyError:
        own_group, own_groups = user, [user]
    os.setgroups(own_groups)
    os.setegid(own_group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(ROOT)
        os.setegid(group)
        os.setgroups(groups)


def open_regular(name: str, flags: int, folder: int) -> int:
    """Return a descriptor of the regular file called *name* in the open *folder*.

    Raises ProvisioningError when a link or something else stands there.
    """
    try:
        file = os.open(name, flags | FILE_FLAGS, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        msg = f"{name} is a link that psqa does not follow: write the path that it leads to."
        raise ProvisioningError(msg) from None
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    msg = f"{name} is not a file: remove it."
    raise ProvisioningError(msg)


def open_planted(path: str, flags: int) -> int:
    """Open the file at *path* for :func:`open`, which follows no link of another user."""
    where = resolve_own_links(Path(path).absolute())
    with open_folder(where.parent) as (folder, _):
        return open_regular(where.name, flags, folder)


def resolve_own_links(path: Path) -> Path:
    """Return where the links lead that stand at the absolute *path*, or *path* if it is not a link.

    Each of them was made by root, as those of a mounted secret are, or by the user who runs psqa.
    The path of a link that another user has made is returned as it is. Raises OSError when nothing
    is there.
    """
    for _ in range(MOST_LINKS):
        with open_folder(path.parent) as (folder, _):
            if not _may_be_followed(os.stat(path.name, dir_fd=folder, follow_symlinks=False)):
                break
            path = path.parent / os.readlink(path.name, dir_fd=folder)
    return path


def _may_be_followed(found: os.stat_result) -> bool:
    return stat.S_ISLNK(found.st_mode) and found.st_uid in {ROOT, os.geteuid()}
