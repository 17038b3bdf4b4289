from myapp.models import MyModel
from sqlalchemy import func, select


def test_a_page_shows_what_the_test_has_added(testapp, dbsession):
    """The request reads in the transaction of the test."""
    dbsession.add(MyModel(name="one", value=55))
    dbsession.flush()

    assert "one is 55" in testapp.get("/", status=200).text


def test_requests_share_the_session_of_the_test(testapp, dbsession, tm):
    """What one has added the next one shows, and the session outlives both."""
    page = testapp.post("/add/one", status=303).follow(status=200)

    assert "one is 1" in page.text
    assert dbsession.scalar(select(func.count()).select_from(MyModel)) == 1
    assert tm.get().isDoomed()


def test_a_response_that_rolls_back_leaves_the_session_to_the_test(testapp, dbsession):
    """The test looks at what the request has done, whatever its status."""
    dbsession.add(MyModel(name="two", value=2))

    testapp.get("/", status=500)
    testapp.get("/no/such/page", status=404)

    assert dbsession.scalars(select(MyModel.name)).all() == ["two"]
