"""Checks the setting ``pyramid.tweens``, which replaces the tweens that the include has added."""

from typing import Any

from pyramid.settings import aslist
from pyramid.tweens import excview_tween_factory
from pyramid_tm import tm_tween_factory

from ..exceptions import SettingError
from .outcome import rollback_tween_factory
from .retry import retry_tween_factory

SETTING = "pyramid.tweens"

# What would happen without each tween that has to be listed.
NEEDED = {
    "pyramid_aalam_sqa.retry_tween_factory": (
        "the attempts of a request would have no pause between them and no whole body"
    ),
    "pyramid_tm.tm_tween_factory": "nothing would be committed",
    "pyramid_aalam_sqa.rollback_tween_factory": (
        "what a view wrote before it raised would be committed with the page of its exception view"
    ),
}

# From the outermost to the innermost, by name.
ORDER = {
    "pyramid_aalam_sqa.retry_tween_factory": retry_tween_factory,
    "pyramid_tm.tm_tween_factory": tm_tween_factory,
    "pyramid.tweens.excview_tween_factory": excview_tween_factory,
    "pyramid_aalam_sqa.rollback_tween_factory": rollback_tween_factory,
}


def check_tweens(config: Any) -> None:
    """Raise :class:`SettingError` if ``pyramid.tweens`` lacks a tween, or has a wrong order."""
    given = [config.maybe_dotted(name) for name in aslist(config.registry.settings[SETTING])]
    for name, consequence in NEEDED.items():
        if ORDER[name] not in given:
            msg = f"{SETTING}: {name} is missing, so that {consequence}. Write: {' '.join(ORDER)}"
            raise SettingError(msg)
    places = [given.index(factory) for factory in ORDER.values() if factory in given]
    if places != sorted(places):
        msg = f"{SETTING}: the order has to be, with others between them: {' '.join(ORDER)}"
        raise SettingError(msg)
