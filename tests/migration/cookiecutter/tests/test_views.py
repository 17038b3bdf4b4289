from myapp.models import MyModel
from myapp.views.default import add_view, my_view
from myapp.views.notfound import notfound_view


def test_without_its_row_the_view_answers_500(app_request):
    """The database is empty for every test."""
    assert my_view(app_request).status_int == 500


def test_the_view_hands_its_row_to_the_template(app_request, dbsession):
    """request.dbsession is the session of the test."""
    dbsession.add(MyModel(name="one", value=55))

    shown = my_view(app_request)

    assert app_request.response.status_int == 200
    assert (shown["one"].value, shown["project"]) == (55, "myapp")


def test_a_view_adds_through_a_dummy_request(dummy_config, dummy_request, dbsession):
    """A view needs no more of a request than the session."""
    dummy_config.add_route("home", "/")
    dummy_request.matchdict["name"] = "three"

    assert add_view(dummy_request).status_int == 303
    assert [model.name for model in dbsession.new] == ["three"]


def test_the_page_for_no_address_is_a_404(app_request):
    """It touches no database."""
    assert notfound_view(app_request) == {}
    assert app_request.response.status_int == 404
