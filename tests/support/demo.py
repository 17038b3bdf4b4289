"""The demo, started from its real ini file, and its pages as a browser reads them."""

import re
from html.parser import HTMLParser

from paste.deploy import loadapp
from webtest import TestApp

from support.pages import ROOT

INI = ROOT / "development.ini"
VOID = {"br", "hr", "img", "input", "link", "meta"}


def ini_for(folder, url, ledger=None, **settings):
    """Return the real ini file in *folder* with other databases, and more *settings*."""
    text = _with(INI.read_text(), "sqlalchemy.url", url)
    if ledger:
        text = _with(text, "sqlalchemy.binds.ledger.url", ledger)
    for key, value in settings.items():
        text = _with(text, key.replace("__", "."), value)
    # Each application would compile the same templates again.
    compiled = folder.parent / "compiled_templates"
    compiled.mkdir(exist_ok=True)
    cached = f"jinja2.bytecode_caching = true\njinja2.bytecode_caching_directory = {compiled}"
    text = text.replace("[app:main]", f"[app:main]\n{cached}")
    path = folder / "development.ini"
    path.write_text(text)
    return str(path)


def _with(text, key, value):
    line = f"{key} = " + value.replace("%", "%%").replace("\\", r"\\")
    changed, times = re.subn(f"^{re.escape(key)} = .*$", line, text, flags=re.MULTILINE)
    assert times == 1
    return changed


def visit(ini):
    """A browser at the application of an ini file."""
    # get_app() would read the metadata of each installed package to find what loads an ini file.
    return TestApp(loadapp(f"config:{ini}"))


def words(tag):
    return " ".join(tag.get_text().split())


def press(visitor, section, choice):
    """Press a button of a section of the landing page; return what the section shows then."""
    page = visitor.get("/")
    form = page.html.find(id=section).find("input", attrs={"name": "section"}).parent
    fields = {field["name"]: field["value"] for field in form.select("input")}
    page = visitor.post(form["action"], {**fields, "choice": choice})
    return page.html.find(id=section)


def unplug(visitor, ledger="unplug"):
    """Press the switch of the ledger."""
    token = visitor.get("/").html.find("input", attrs={"name": "csrf_token"})["value"]
    visitor.post("/outage", {"csrf_token": token, "ledger": ledger}, status=303)


def status(shown):
    return words(shown.select_one(".status"))


def verdict(shown):
    return words(shown.select_one(".verdict"))


def sent(shown):
    """What each attempt has sent, as (statement, result)."""
    return [
        [
            (words(item.code), words(item.strong) if item.strong else "")
            for item in attempt.select("li")
        ]
        for attempt in shown.select(".sent")
    ]


class Checker(HTMLParser):
    """Notes each tag that is not closed where it should be, and each id that is given twice."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.problems = [], set(), []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        ident = dict(attributes).get("id")
        if len(set(names)) < len(names) or ident in self.ids:
            self.problems.append((tag, attributes))
        self.ids |= {ident} - {None}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append((f"/{tag}", self.getpos()))


def html_problems(text):
    checker = Checker()
    checker.feed(text)
    checker.close()
    return checker.problems + checker.open
