"""Writes docs/reference.md from the docstrings: python docs/make_reference.py."""

import inspect
import re
from pathlib import Path

import pyramid_aalam_sqa
from pyramid_aalam_sqa._config import add_sqa_bind, add_sqa_database
from pyramid_aalam_sqa._request import (
    sqa_after_commit,
    sqa_session,
    sqa_sessions,
    sqa_stream,
)

# What a transaction manager calls, and nobody else.
NOT_FOR_CALLERS = {"afterCompletion", "beforeCompletion", "join", "newTransaction"}
PAGE = Path(__file__).parent / "reference.md"
INTRODUCTION = """# Reference

What can be imported from `pyramid_aalam_sqa`, made from its docstrings by `make_reference.py`.
"""


def signature(thing, name):
    """Return how *thing* is called, without the types that a reader can do without."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return name
    shown = [str(p.replace(annotation=p.empty)) for p in parameters if p.name != "self"]
    return f"{name}({', '.join(shown)})"


def markdown(text):
    """Return *text* with the marks of reStructuredText as those of Markdown."""
    return re.sub(r":\w+:(`[^`]+`)", r"\1", text).replace("``", "`")


def entry(name, thing, level="##", call=None):
    """Yield the lines about one name."""
    yield f"{level} `{name}`\n"
    if call:
        yield f"`{call}`\n"
    yield markdown(inspect.getdoc(thing)) + "\n"


def page():
    """Return the whole page."""
    lines = [INTRODUCTION]
    for name in pyramid_aalam_sqa.__all__:
        thing = getattr(pyramid_aalam_sqa, name)
        lines += entry(
            name, thing, call=signature(thing, name) if inspect.isfunction(thing) else None
        )
        if not inspect.isclass(thing):
            continue
        for member, value in vars(thing).items():
            if member.startswith("_") or member in NOT_FOR_CALLERS:
                continue
            if inspect.isfunction(value):
                lines += entry(f"{name}.{member}", value, "###", signature(value, member))
            elif isinstance(value, property):
                lines += entry(f"{name}.{member}", value, "###")
    lines += ["# Request\n"]
    for function in (sqa_session, sqa_sessions, sqa_after_commit, sqa_stream):
        name = f"request.{function.__name__}"
        made = function in {sqa_session, sqa_sessions}
        call = None if made else signature(function, name)
        lines += entry(name, function, call=call and call.replace("(request, ", "("))
    lines += ["# Directives\n"]
    for directive in (add_sqa_database, add_sqa_bind):
        name = f"config.{directive.__name__}"
        call = signature(directive, name).replace("(config, ", "(")
        lines += entry(name, directive, call=call)
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
