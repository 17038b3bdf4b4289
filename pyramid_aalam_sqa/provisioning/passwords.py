"""Makes new passwords and writes them into files; ``engines`` reads those files when it logs in."""

import os
import secrets
from pathlib import Path
from stat import S_IMODE

from ..exceptions import ProvisioningError

# A file with a password is never readable by every user of the system.
NOT_OTHERS = 0o640


def new_password() -> str:
    """Return a random password with 256 bits, in letters, digits and signs.

    It has a letter of each case, a digit and a sign, which the servers' password rules ask for.
    """
    return f"{secrets.token_urlsafe(32)}-aA1"


def write_password(path: Path, password: str, *, like: Path) -> None:
    """Write *password* into a new file at *path*, with the owner and the mode of the file *like*.

    The password is on the disk when this returns. Raises ProvisioningError when the system refuses.
    """
    try:
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            model = like.stat()
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
    """Rename the file *by* to *path*; the new name is on the disk when this returns."""
    by.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
