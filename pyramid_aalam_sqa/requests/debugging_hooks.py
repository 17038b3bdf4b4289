"""What the include knows of the room ``debugging``: its name, and when it is needed.

That room is above this one and imports it. So it is named as text and imported where a setting, a
view or a directive asks for it; an application that does not ask never imports it.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import Any

ROOM = "pyramid_aalam_sqa.debugging"


def is_wanted(options: Mapping[str, Any]) -> bool:
    """Tell whether one of the ``sqa.`` *options* asks to watch what the engines are asked."""
    numbers = options["slow_statement"] is not None
    return (
        numbers
        or options["record"]
        or options["server_timing"]
        or options["stats"]
        or options["n_plus_one"] != "off"
    )


def n_plus_one_deriver(view: Any, info: Any) -> Any:
    """Give views the option ``sqa_n_plus_one``: ``off``, ``log`` or ``raise`` for this view."""
    mode = info.options.get("sqa_n_plus_one")
    if mode is None:
        return view
    return resolve_name(f"{ROOM}.request_recording:view_with_mode")(view, mode)


n_plus_one_deriver.options = ("sqa_n_plus_one",)  # type: ignore[attr-defined]  # Pyramid's way to say it


def add_sqa_health(
    config: Any, path: str = "/healthz", live: str = "/livez", **options: Any
) -> None:
    """Answer at *path* whether the databases can be used: see ``debugging.add_sqa_health``."""
    resolve_name(f"{ROOM}.health:add_sqa_health")(config, path, live, **options)
