from myapp.models import MyModel
from sqlalchemy import func, select


def test_a_page_shows_what_the_test_has_added(sqa_client, sqa_session):
    """The request reads what the test has committed."""
    sqa_session.add(MyModel(name="one", value=55))
    sqa_session.commit()

    assert "one is 55" in sqa_client.get("/", status=200).text


def test_requests_see_what_others_have_stored(sqa_client, sqa_session, sqa_outcomes):
    """What one has added the next one shows."""
    page = sqa_client.post("/add/one", status=303).follow(status=200)

    assert "one is 1" in page.text
    assert sqa_session.scalar(select(func.count()).select_from(MyModel)) == 1
    assert sqa_outcomes == ["commit", "commit"]


def test_a_response_that_rolls_back_leaves_the_rows_of_the_test(sqa_client, sqa_session):
    """A 404 and a 500 undo their own work only."""
    sqa_session.add(MyModel(name="two", value=2))
    sqa_session.commit()

    sqa_client.get("/", status=500)
    sqa_client.get("/no/such/page", status=404)

    assert sqa_session.scalars(select(MyModel.name)).all() == ["two"]
