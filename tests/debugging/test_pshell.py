"""In pshell the session, the transaction manager and the models are ready."""

import pytest
from pyramid.scripts.pshell import PShellCommand

INI = """
[app:main]
use = call:support.pshell_app:main
sqlalchemy.url = {url}

[pshell]
setup = pyramid_aalam_sqa.debugging.setup_pshell
"""


@pytest.fixture
def shell(any_database, tmp_path, capsys):
    """Run a function of the shell's names in a real pshell; return what was printed."""
    ini = tmp_path / "shell.ini"
    url = any_database.url.replace("%", "%%")
    ini.write_text(INI.format(url=url))

    def run(act):
        PShellCommand(["pshell", str(ini)]).run(lambda env, help: act(env))  # noqa: A006 - pshell's
        return capsys.readouterr().out

    any_database.run("CREATE TABLE note (id INTEGER, body VARCHAR(50))")
    return run, any_database


def test_what_is_committed_stays_and_the_rest_is_undone(shell):
    """Without a word about a transaction that was not begun."""
    run, database = shell

    def act(env):
        session, tm, models = env["session"], env["tm"], env["models"]
        # Other tests of this process may have models of that name.
        note = getattr(models, "Note", None) or models.support_models_Note
        session.add(note(id=1, body="kept"))
        tm.commit()
        tm.begin()
        session.add(note(id=2, body="undone"))
        session.flush()

    run(act)

    assert database.rows("SELECT body FROM note") == [("kept",)]


def test_the_banner_says_what_a_transaction_needs(shell):
    """And which models there are."""
    run, _ = shell
    out = run(lambda env: env["tm"].commit())

    assert "tm.commit(); tm.begin()   store what was done" in out
    assert "What is not committed when the shell ends is undone." in out
    assert "Note" in out


def test_two_models_of_one_name_are_told_apart(shell):
    """By their modules."""
    from support import bound, shop

    run, _ = shell
    got = {}
    run(lambda env: got.update(vars(env["models"])))

    assert got["support_bound_Book"] is bound.Book
    assert got["support_shop_Book"] is shop.Book
    assert "Book" not in got
