"""A module imports only what stands left of it."""

import ast
from pathlib import Path

import pyramid_aalam_sqa

PACKAGE = Path(pyramid_aalam_sqa.__file__).parent
# From left to right; each may import what stands before it. The demo stands outside.
ORDER = [
    "exceptions",
    "_protocols",
    "_names",
    "_urls",
    "_kinds",
    "_options",
    "_ini",
    "_given",
    "_settings",
    "_dialects.generic",
    "_dialects.mysql",
    "_dialects.postgresql",
    "_dialects.attached",
    "_dialects.sqlite",
    "_dialects.sorting",
    "_dialects",
    "_faults",
    "_budget",
    "_passwords",
    "_engines",
    "_identity",
    "queries",
    "_addresses",
    "_cursor",
    "_shapes",
    "_ordering",
    "_keyset",
    "_pages",
    "_finding",
    "pagination",
    "_json",
    "_keys",
    "_routing",
    "_tables",
    "_session",
    "_commits",
    "_sharing",
    "_threads",
    "_sqa",
    "_binds",
    "_directory",
    "binds",
    "applications",
    "_servers.generic",
    "_servers.mysql_accounts",
    "_servers.mysql_grants",
    "_servers.mysql_check",
    "_servers.mysql_proof",
    "_servers.mysql",
    "_servers.postgresql_drift",
    "_servers.postgresql_findings",
    "_servers.postgresql_proof",
    "_servers.postgresql",
    "_servers.sqlite",
    "_servers",
    "_provisioned",
    "provisioning",
    "_lifetime",
    "_request",
    "_retry",
    "scripting",
    "_availability",
    "_outcome",
    "_config",
    "",
    "_shown",
    "psqa",
]
ONLY_HERE = {"pyramid.config": {"_config"}, "zope.sqlalchemy": {"_session"}}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def modules():
    return [path for path in PACKAGE.rglob("*.py") if "demo" not in path.parts]


def imports(path):
    """Every name imported anywhere in the file, in functions too, as absolute dotted names."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *filter(None, [node.module])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def ours(path):
    prefix = "pyramid_aalam_sqa"
    for name in imports(path):
        if name == prefix or name.startswith(prefix + "."):
            short = name.removeprefix(prefix).removeprefix(".")
            if short in ORDER and short:
                yield short


def test_every_module_has_its_place_in_the_order():
    """A new module is placed in the house, not beside it."""
    assert sorted(map(module_name, modules())) == sorted(ORDER)


def test_a_module_imports_only_what_stands_left_of_it():
    """Reading from left to right, nobody meets a name that was not explained yet."""
    wrong = [
        (module_name(path), used)
        for path in modules()
        for used in ours(path)
        if ORDER.index(used) >= ORDER.index(module_name(path)) and used != module_name(path)
    ]
    # A package imports its own submodules, and they its other submodules, by design of Python.

    assert wrong == []


def test_only_the_configuration_touches_a_configurator_and_only_the_session_knows_zope():
    """What can be understood in one place stays in one place."""
    wrong = [
        (module_name(path), name)
        for path in modules()
        for name in imports(path)
        for wall, allowed in ONLY_HERE.items()
        if (name == wall or name.startswith(wall + ".")) and module_name(path) not in allowed
    ]

    assert wrong == []


def test_no_module_has_more_than_three_hundred_lines():
    """A module that does is two modules."""
    long = [path.name for path in modules() if len(path.read_text().splitlines()) > 300]

    assert long == []


def test_the_demo_uses_public_names_only():
    """What the demo can do, every application can."""
    wrong = [
        (path.name, name)
        for path in (PACKAGE / "demo").rglob("*.py")
        for name in imports(path)
        if name.startswith("pyramid_aalam_sqa._") or ".._" in name
    ]

    assert wrong == []
