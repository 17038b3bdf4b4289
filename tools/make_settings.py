"""Writes the table of docs/reference/settings.md; ``make docs`` runs it."""

import re
from pathlib import Path

from sqlalchemy.engine import make_url

from pyramid_aalam_sqa.backends.backend import Backend
from pyramid_aalam_sqa.backends.registry import backend_for
from pyramid_aalam_sqa.settings.options import SQA_OPTIONS, all_options

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "settings.md"
BEGIN = "<!-- made by make_settings.py -->"
END = "<!-- end -->"
SQA_DEFAULTS = {
    option.key: option.type.value(option.default) if option.default else None
    for option in SQA_OPTIONS
}
EVERYWHERE = Backend(make_url("any+driver://"), SQA_DEFAULTS).engine_defaults()
DATABASES = {
    name: dict(backend_for(make_url(url), SQA_DEFAULTS).engine_defaults())
    for name, url in (
        ("MySQL", "mysql+pymysql://"),
        ("PostgreSQL", "postgresql+psycopg://"),
        ("SQLite", "sqlite:///file"),
        ("SQLite in memory", "sqlite://"),
    )
}

# A statement that sets up each new connection sets it: the engine has no option for it.
DATABASES["MySQL"] = {**DATABASES["MySQL"], "isolation_level": "READ COMMITTED"}
# It depends on the libpq that is installed. The text of the page says from which version on.
DATABASES["PostgreSQL"].pop("connect_args.require_auth", None)


def code(text):
    """Return *text* as code in Markdown, or an empty string for an empty *text*."""
    return f"`{text}`" if text else ""


def arguments(defaults):
    """Return the connect_args in *defaults*, written as in an ini file."""
    found = {key: text for key, text in defaults.items() if key.startswith("connect_args.")}
    return ", ".join(f"{key.removeprefix('connect_args.')} = {text}" for key, text in found.items())


def default_in(defaults, option):
    """Return the default of *option* on a database with these *defaults*."""
    name = option.key.removeprefix("sqlalchemy.")
    return arguments(defaults) if name == "connect_args" else defaults.get(name, option.default)


def default(option):
    """Return the common default, then the default of each database that has another one."""
    everywhere = default_in(EVERYWHERE, option)
    cells = [code(everywhere)]
    shown = {}
    if option.key.startswith("sqlalchemy."):
        shown = {name: default_in(defaults, option) for name, defaults in DATABASES.items()}
    if shown.get("SQLite in memory") == shown.get("SQLite"):
        shown.pop("SQLite in memory", None)
    cells += [f"{name}: {code(text)}" for name, text in shown.items() if text != everywhere]
    return "; ".join(filter(None, cells))


def rows():
    """Yield the lines of the table."""
    yield "| key | write | default | meaning |"
    yield "|---|---|---|---|"
    for option in all_options():
        cells = (code(option.key), option.type.write, default(option), option.meaning)
        yield f"| {' | '.join(cells)} |"


def page(text):
    """Return the page *text* with its table made anew."""
    made = "\n".join([BEGIN, *rows(), END])
    return re.sub(f"{BEGIN}.*{END}", lambda _: made, text, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
