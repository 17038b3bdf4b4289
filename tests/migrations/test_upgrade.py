"""psqa upgrade, downgrade and migrations on one database, as the owner."""

import pytest
from sqlalchemy.exc import DBAPIError

from support.migrated import PASSWORD


@pytest.mark.sweep(2)
def test_upgrade_and_downgrade_move_the_database_as_the_owner(site, revisions):
    """The runtime account changes no table, before or after, and no report has a password."""
    revisions.add_table("1", "note")
    revisions.add_table("2", "page")
    planned = site.psqa("upgrade", "--dry-run")
    told, [report] = site.report()
    again, [nothing] = site.report()
    where = site.psqa("migrations")

    assert (planned.status, told.status, again.status, where.status) == (1, 0, 0, 0)
    assert planned.out == f"{site.name}: base -> heads (1, 2);\n"
    assert (report["from"], report["to"], report["state"]) == ("base", "2", "done")
    assert report["revisions"] == ["1", "2"]
    assert (nothing["from"], nothing["to"], nothing["state"]) == ("2", "2", "current")
    assert site.versions() == ["2"]
    assert site.eyes.rows(f"SELECT * FROM {site.table('page')}") == []
    if site.kind != "sqlite":
        with site.as_runtime().connect() as connection, pytest.raises(DBAPIError):
            connection.exec_driver_sql("CREATE TABLE planted (id INTEGER PRIMARY KEY)")
    told, [report] = site.report("--to", "base", command="downgrade")
    assert (told.status, report["to"], report["revisions"]) == (0, "base", ["2", "1"])
    assert PASSWORD not in told.out + told.err + str(report)
