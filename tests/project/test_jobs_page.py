"""docs/guide/jobs.md: its jobs do what the page says, by Celery, by RQ and by APScheduler."""

import importlib
import subprocess
import sys

import pytest
from pyramid.config import Configurator
from redis import Redis
from rq.job import Job
from sqlalchemy.exc import OperationalError
from webtest import TestApp

from pyramid_aalam_sqa import OutcomeUnknownError, get_sqa
from support.pages import ROOT, blocks, write_file
from support.processes import QUIET

PAGE = ROOT / "docs" / "guide" / "jobs.md"
MODULES = ("jobs", "tasks", "schedule", "views")
FACTORY = """
from pyramid.config import Configurator

def main(global_config, **settings):
    return Configurator(settings=settings).make_wsgi_app()
"""


@pytest.fixture
def page(database, tmp_path, monkeypatch):
    """The modules of the page, in a process with one application and its table."""
    database.run("CREATE TABLE product (name VARCHAR(50))")
    monkeypatch.syspath_prepend(tmp_path)
    rest = [code for code in blocks(PAGE, "python") if not write_file(tmp_path, code)]
    (tmp_path / "shop_views.py").write_text("\n".join(rest[:2]))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(f"shop_{name}", None)


@pytest.fixture
def client(alone, database, page):
    """Visit the application of the page."""
    with Configurator(settings={"sqlalchemy.url": database.url}) as config:
        config.include("pyramid_aalam_sqa")
        config.add_view(page("shop_views").order, name="order")
    app = config.make_wsgi_app()
    yield TestApp(app)
    get_sqa(app).dispose()


@pytest.fixture
def products(database):
    """Return what is stored, as others see it."""
    return lambda: [name for (name,) in database.rows("SELECT name FROM product")]


def test_a_job_is_sent_after_the_commit(client, products):
    """The view of the page calls it once."""
    client.get("/order?name=tea")

    assert products() == ["tea"]


def test_a_celery_task_needs_no_session_from_its_caller(client, page, products):
    """Its decorator stands above that of the session; delay() takes the other arguments."""
    tasks = page("shop_tasks")
    tasks.celery.conf.task_always_eager = True
    tasks.restock.delay("tea").get()

    assert tasks.restock.name == "shop_tasks.restock"
    assert products() == ["tea"]


def test_the_command_of_the_worker_finds_celery(sqlite, tmp_path):
    """Its module loads the application first, as the ini file says."""
    for code in blocks(PAGE, "python"):
        write_file(tmp_path, code)
    ini = "[app:main]\nuse = call:shop_factory:main\npyramid.includes = pyramid_aalam_sqa\n"
    (tmp_path / "development.ini").write_text(f"{ini}sqlalchemy.url = {sqlite.url}\n")
    (tmp_path / "shop_factory.py").write_text(FACTORY)
    program, *arguments, worker = blocks(PAGE, "console")[0].split()
    # "report" loads what "worker" loads, and asks no broker.
    command = [sys.executable, *QUIET, "-m", program, *arguments, "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert worker == "worker"
    assert (done.returncode, done.stderr) == (0, "")
    assert "transport:redis" in done.stdout


def test_celery_tries_an_outage_again_and_not_a_lost_commit(page):
    """As the table of the page says."""
    assert page("shop_tasks").restock.autoretry_for == (OperationalError,)
    assert not issubclass(OutcomeUnknownError, OperationalError)


def test_rq_finds_the_job_by_its_name(client, page, products):
    """A worker imports the function that the view has enqueued."""
    job = Job.create(page("shop_jobs").restock, args=("tea",), connection=Redis())
    assert job.func_name == "shop_jobs.restock"
    job.func(*job.args)

    assert products() == ["tea"]


def test_apscheduler_calls_the_job(client, page, products):
    """The scheduler of the page has it, with its argument."""
    [job] = page("shop_schedule").make_scheduler().get_jobs()
    job.func(*job.args)

    assert products() == ["tea"]
