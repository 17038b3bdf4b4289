"""What is ready in ``pshell``: the session, the transaction manager and the models."""

from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from transaction.interfaces import NoTransaction

from ..engines import mapped_classes

BANNER = """\
session, tm and models are ready. The session is in a transaction:
  tm.commit(); tm.begin()   store what was done, and go on
  tm.abort(); tm.begin()    undo what was done, and go on
What is not committed when the shell ends is undone.
models: {names}
"""


class Models(SimpleNamespace):
    """The mapped classes by their names, such as models.Note."""


def setup_pshell(env: dict[str, Any]) -> Iterator[None]:
    """Give ``pshell`` the names ``session``, ``tm`` and ``models``, in a transaction that is begun.

    ``setup = pyramid_aalam_sqa.debugging.setup_pshell`` in the section ``[pshell]`` of the ini
    file. Two classes of one name are under ``<module>.<name>``, with underscores for the dots.
    What is not committed is rolled back at the end of the shell.
    """
    request = env["request"]
    tm = request.tm
    tm.begin()
    models = Models(**_models())
    env.update(session=request.sqa_session, tm=tm, models=models)
    print(BANNER.format(names=", ".join(vars(models)) or "none"))  # noqa: T201 - a shell's banner
    try:
        yield
    finally:
        # The last thing done may have been a commit.
        with suppress(NoTransaction):
            tm.abort()


def _models() -> dict[str, type]:
    classes = mapped_classes()
    names = [each.__name__ for each in classes]
    return {
        each.__name__
        if names.count(each.__name__) == 1
        else f"{each.__module__}_{each.__name__}".replace(".", "_"): each
        for each in sorted(classes, key=lambda each: (each.__name__, each.__module__))
    }
