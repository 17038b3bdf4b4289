from myapp.models import MyModel
from myapp.views.default import add_view, my_view
from myapp.views.notfound import notfound_view


def test_without_its_row_the_view_answers_500(sqa_request):
    """The database is empty for every test."""
    assert my_view(sqa_request).status_int == 500


def test_the_view_hands_its_row_to_the_template(sqa_request, sqa_session):
    """request.dbsession sees what the test has committed."""
    sqa_session.add(MyModel(name="one", value=55))
    sqa_session.commit()

    shown = my_view(sqa_request)

    assert sqa_request.response.status_int == 200
    assert (shown["one"].value, shown["project"]) == (55, "myapp")


def test_a_view_adds_through_a_dummy_request(sqa_config, sqa_request):
    """A view needs no more of a request than the session, and a route of the test's own."""
    sqa_config.add_route("home", "/")
    sqa_request.matchdict["name"] = "three"

    assert add_view(sqa_request).status_int == 303
    assert [model.name for model in sqa_request.dbsession.new] == ["three"]


def test_the_page_for_no_address_is_a_404(sqa_request):
    """It touches no database."""
    assert notfound_view(sqa_request) == {}
    assert sqa_request.response.status_int == 404
