"""With many threads, what is stored agrees with what each client was told."""

import random

import pytest
from webtest import TestApp

from pyramid_aalam_sqa import get_sqa
from support.rule_app import main
from support.threads import together

THREADS = 32
# For each thread; the larger numbers are those of `make test-deep`.
SOME, MANY = {"mysql": 25, "sqlite": 10}, {"mysql": 200, "sqlite": 50}
STATUSES = [200, 201, 204, 302, 303, 400, 404, 409, 500, 503]


@pytest.mark.parametrize(
    "requests",
    [pytest.param(SOME, id="some"), pytest.param(MANY, id="many", marks=pytest.mark.deep)],
)
@pytest.mark.sweep(1)
def test_32_threads_of_mixed_statuses_store_exactly_what_was_promised(database, requests):
    """No row is lost or stored twice, and every connection goes back to the pool."""
    database.run("CREATE TABLE note (body VARCHAR(50))")
    settings = {
        "sqlalchemy.url": database.url,
        "pyramid.includes": "pyramid_aalam_sqa",
        # A writer waits for the writers before it, and a connection for the threads before it.
        "sqlalchemy.pool_timeout": "60",
        "sqa.lock_timeout": "60",
    }
    app = main({}, **settings)
    promised = []

    def visit(index):
        # Without WebTest's check of responses, which forbids a body that a raised 204 has.
        client = TestApp(app, lint=False)
        chooser = random.Random(index)
        for number in range(requests[database.kind]):
            how = chooser.choice(["returned", "raised"])
            status = chooser.choice(STATUSES)
            body = f"{index}-{number}"
            client.get(f"/{how}/{status}/{body}", status=status)
            if status < 400:
                promised.append(body)

    together(THREADS, visit)

    assert sorted(row[0] for row in database.rows("SELECT body FROM note")) == sorted(promised)
    assert get_sqa(app).engine.pool.checkedout() == 0
