"""What the tests of an unavailable database have in common."""

from support.pages import ROOT

FAULTS_PAGE = ROOT / "docs" / "guide" / "faults.md"
SECRETS = ["127.0.0.1", "top-secret", "notes_db", "select", "insert", "pymysql", "psycopg", "error"]
MYSQL = "mysql+pymysql://app:top-secret@127.0.0.1:{port}/notes_db"
POSTGRESQL = "postgresql+psycopg://app:top-secret@127.0.0.1:{port}/notes_db"
# Seconds. A wait that is bounded ends long before.
BOUND = 30


def unavailable(client, path, **options):
    """Get *path*; check that it is a 503 with Retry-After and without any secret."""
    response = client.get(path, status=503, **options)
    assert response.headers["Retry-After"] == "5"
    shown = f"{response.headers} {response.text}".lower()
    assert [secret for secret in SECRETS if secret in shown] == []
    return response


def lines(caplog):
    """Return the level and the text of each line that the log has about a 503."""
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "pyramid_aalam_sqa.requests.service_unavailable"
    ]
