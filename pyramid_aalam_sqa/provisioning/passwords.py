"""TODO."""

import os
import secrets
from pathlib import Path
from stat import S_IMODE

from ..exceptions import ProvisioningError

# Others may not read what holds a password.
NOT_OTHERS = 0o640


def write_password(path: Path, secret: str, *, like: Path) -> None:
    """Write *secret* into a new file for whoever reads *like*; a crash does not undo it."""
    try:
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            model = like.stat()
            os.fchown(file, model.st_uid, model.st_gid)
            os.fchmod(file, S_IMODE(model.st_mode) & NOT_OTHERS | 0o600)
            os.write(file, f"{secret}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        msg = f"The new password cannot be written to {path}: {error.strerror}."
        raise ProvisioningError(msg) from None


def take_place(path: Path, of: Path) -> None:
    """Rename the file at *path* over the one at *of*, also for whoever starts after a crash."""
    path.replace(of)
    folder = os.open(of.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def new_password() -> str:
    """Return a password that nobody knows and every rule for passwords accepts."""
    return f"{secrets.token_urlsafe(32)}-aA1"
