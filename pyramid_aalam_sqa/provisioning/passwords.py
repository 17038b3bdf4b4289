"""Makes new passwords, and reads and writes the files that have them.

An application reads its file too, by ``engines``, for each new connection. Here the file may stand
in a folder of the application's user, who may have planted a link: see ``files``. psqa reads
through a link of root's, as those of a mounted secret are, and writes through none.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE, S_IRWXO

from ..engines import read_password
from ..exceptions import ProvisioningError
from .files import open_folder, open_planted, open_regular, resolve_own_links

# A file with a password is never readable by every user of the system.
NOT_OTHERS = 0o640


def new_password() -> str:
    """Return a random password with 256 bits, in letters, digits and signs.

    It has a letter of each case, a digit and a sign, which the servers' password rules ask for.
    """
    return f"{secrets.token_urlsafe(32)}-aA1"


def read_own_password(path: Path) -> str:
    """Return the password in the application's file at *path*.

    Raises ProvisioningError for a link that another user has made, and SettingError when the file
    has no password.
    """
    return read_password(path, open_planted)


def is_open_to_others(path: Path) -> bool:
    """Tell whether every user of the system can read or write the file at *path*."""
    try:
        file = resolve_own_links(path)
        with open_folder(file.parent) as (folder, _):
            mode = os.stat(file.name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    return bool(mode & S_IRWXO)


def refuse_link(path: Path) -> None:
    """Raise ProvisioningError when the file at *path* is a link, whoever has made it.

    A new password would take the place of the link, and the old one would stay where it leads.
    """
    if path.is_symlink():
        msg = (
            f"{path} is a link, and psqa writes through none: change the password where the link "
            "leads to, then run psqa create."
        )
        raise ProvisioningError(msg)


def write_password(path: Path, password: str, *, like: Path) -> None:
    """Write *password* into a new file at *path*, with the owner and the mode of the file *like*.

    Both are in one folder. The password is on the disk when this returns. Raises ProvisioningError
    when the system refuses.
    """
    try:
        with open_folder(path.parent) as (folder, _):
            model_file = open_regular(like.name, os.O_RDONLY, folder)
            model = os.fstat(model_file)
            os.close(model_file)
            with suppress(FileNotFoundError):
                os.unlink(path.name, dir_fd=folder)
            file = open_regular(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, folder)
            try:
                os.fchown(file, model.st_uid, model.st_gid)
                os.fchmod(file, S_IMODE(model.st_mode) & NOT_OTHERS | 0o600)
                os.write(file, f"{password}\n".encode())
                os.fsync(file)
            finally:
                os.close(file)
    except OSError as error:
        msg = f"The new password cannot be written to {path}: {error.strerror}."
        raise ProvisioningError(msg) from None


def replace_file(path: Path, *, by: Path) -> None:
    """Rename the file *by* to *path* in the same folder; it is on the disk when this returns."""
    with open_folder(path.parent) as (folder, _):
        os.rename(by.name, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        whole = os.open(".", os.O_RDONLY, dir_fd=folder)
        try:
            os.fsync(whole)
        finally:
            os.close(whole)
