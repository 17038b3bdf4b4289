"""The pytest plugin: it costs nothing where it is not used, and tells by name what went wrong."""

import subprocess
import sys
import textwrap

import pytest

# A run inside this process forgets the modules that it has imported. SQLAlchemy does not forget the
# functions that such a module has registered, so this one is imported before.
import sqlalchemy.dialects.postgresql  # noqa: F401 - see above

pytest_plugins = ["pytester"]

APP = """
    import pytest
    from pyramid.config import Configurator
    from pyramid.response import Response
    from sqlalchemy import text
    from pyramid_aalam_sqa import Session, get_sqa

    def write(request):
        for _ in range(3):
            request.sqa_session.execute(text("INSERT INTO note VALUES ('new')"))
        return Response("ok")

    @pytest.fixture(scope="session")
    def sqa_app(tmp_path_factory):
        url = f"sqlite:///{tmp_path_factory.mktemp('data')}/app.sqlite"
        with Configurator(settings={"sqlalchemy.url": url}) as config:
            config.include("pyramid_aalam_sqa")
            config.add_view(write)
        app = config.make_wsgi_app()
        with get_sqa(app).engine.begin() as connection:
            connection.execute(text("CREATE TABLE note (body VARCHAR(20))"))
        yield app
        Session(app).remove()
        get_sqa(app).dispose()
"""


@pytest.fixture
def project(pytester):
    """A project with an application and no configuration."""
    pytester.makeconftest(APP)
    return pytester


def test_the_plugin_imports_nothing_of_the_package():
    """Pytest imports it in every project of the environment."""
    code = (
        "import sys, pytest_pyramid_aalam_sqa\n"
        "heavy = {'pyramid_aalam_sqa', 'sqlalchemy', 'pyramid', 'webtest', 'zope.interface'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_project_without_the_fixture_is_told_to_write_it(pytester):
    """One error, with the lines to write."""
    pytester.makepyfile("def test_it(sqa_client): pass")
    result = pytester.runpytest_inprocess("-p", "no:randomly")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Write a fixture sqa_app in conftest.py*"])


def test_each_test_is_isolated_and_told_by_name_what_went_wrong(project):
    """A failing one shows its statements; what cannot be undone is an error of that test alone."""
    project.makepyfile("""
        import sqlite3
        import unittest
        import pytest
        from sqlalchemy import text
        from webtest import TestApp
        from pyramid_aalam_sqa import Session, get_sqa
        from pyramid_aalam_sqa.testing import isolated

        def test_shown(sqa_client, sqa_statements):
            with sqa_statements() as statements:
                sqa_client.get("/")
            assert statements.count <= 2

        def test_forgotten(sqa_app, sqa_sandbox):
            session = Session(sqa_app)
            session.execute(text("INSERT INTO note VALUES ('forgotten')"))

        def test_clean(sqa_session):
            assert sqa_session.scalar(text("SELECT count(*) FROM note")) == 0

        @pytest.mark.sqa_commits
        def test_real(sqa_app, sqa_client):
            sqa_client.get("/")
            eyes = sqlite3.connect(get_sqa(sqa_app).engine.url.database)
            assert eyes.execute("SELECT count(*) FROM note").fetchone() == (3,)
            eyes.close()

        class NoteTest(unittest.TestCase):
            __test__ = False
            app = None

            def setUp(self):
                self.sandbox = self.enterContext(isolated(self.app))

            def runTest(self):
                TestApp(self.app).get("/")
                assert self.sandbox.session.scalar(text("SELECT count(*) FROM note")) == 3

        def test_unittest(sqa_app):
            NoteTest.app = sqa_app
            assert unittest.TextTestRunner().run(NoteTest()).wasSuccessful()
    """)
    result = project.runpytest_inprocess(
        "--strict-markers", "-p", "no:cacheprovider", "-k", "test_"
    )

    result.assert_outcomes(passed=4, failed=1, errors=1, deselected=0, skipped=0)
    result.stdout.fnmatch_lines_random(
        [
            "*sqa_statements*",
            "3 statements",
            "*INSERT INTO note VALUES ('new') at *conftest.py*",
            "*ERROR at teardown of test_forgotten*",
            "*SandboxError*in use by*",
        ]
    )


@pytest.mark.deep
def test_commits_are_real_where_a_run_asks_for_it(project):
    """By `--sqa-commits`."""
    project.makepyfile("""
        import sqlite3
        from pyramid_aalam_sqa import get_sqa

        def test_one(sqa_app, sqa_client):
            sqa_client.get("/")
            eyes = sqlite3.connect(get_sqa(sqa_app).engine.url.database)
            assert eyes.execute("SELECT count(*) FROM note").fetchone() == (3,)
            eyes.close()
    """)

    project.runpytest_inprocess("--sqa-commits").assert_outcomes(passed=1)


@pytest.mark.deep
def test_queryguard_works_beside_it(project):
    """It counts the statements of the application, and names the loop in the view."""
    pytest.importorskip("pytest_queryguard")
    project.makepyfile("""
        def test_it(sqa_client):
            sqa_client.get("/")
    """)
    done = project.runpytest_subprocess("-p", "queryguard")

    done.assert_outcomes(passed=1)


@pytest.mark.deep
def test_a_test_that_hangs_is_named_and_the_next_one_is_clean(pytester):
    """pytest-timeout ends it, also while a thread of the server goes on in a view."""
    pytest.importorskip("pytest_timeout")
    hang = """
    def write(request):
        if "hang" in request.params:
            request.sqa_session.execute(text("INSERT INTO note VALUES ('hung')"))
            Event().wait(20)
"""
    app = APP.replace("    def write(request):\n", hang)
    pytester.makeconftest("from threading import Event\n" + textwrap.dedent(app))
    pytester.makeini("[pytest]\ntimeout = 2")
    pytester.makepyfile("""
        from urllib.request import urlopen
        from sqlalchemy import text

        def test_a_view_that_hangs(sqa_client):
            sqa_client.get("/?hang=1")

        def test_after_it(sqa_session, sqa_client):
            assert sqa_session.scalar(text("SELECT count(*) FROM note")) == 0
            assert sqa_client.get("/").status_int == 200

        def test_a_browser_that_waits(sqa_server):
            urlopen(f"{sqa_server}/?hang=1")

        def test_after_the_browser(sqa_session, sqa_client):
            assert sqa_session.scalar(text("SELECT count(*) FROM note")) == 0
            assert sqa_client.get("/").status_int == 200
    """)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    # The thread that is still in the view has a connection: an error at the end of the same test.
    done.assert_outcomes(passed=2, failed=2, errors=1)
    done.stdout.fnmatch_lines_random(
        [
            "FAILED *::test_a_view_that_hangs*",
            "FAILED *::test_a_browser_that_waits*",
            "*Failed: Timeout *2*",
            "ERROR *::test_a_browser_that_waits*",
            "*SandboxError*a connection is in use by GET /*",
        ]
    )
