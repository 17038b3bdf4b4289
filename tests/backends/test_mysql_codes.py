"""The error numbers of MySQL and MariaDB mean the same with every driver."""

import pytest
from sqlalchemy.engine import make_url

from pyramid_aalam_sqa.backends.backend import ErrorKind
from pyramid_aalam_sqa.backends.registry import backend_for


class OtherDriversError(Exception):
    """An error as mysqlclient raises it. Its first argument is the number."""


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (1213, ErrorKind.CONFLICT),
        (1020, ErrorKind.CONFLICT),
        (3101, ErrorKind.CONFLICT),
        (1205, ErrorKind.LOCK_TIMEOUT),
        (2006, ErrorKind.DISCONNECT),
        (2013, ErrorKind.DISCONNECT),
        (1792, ErrorKind.READ_ONLY_SERVER),
        (1062, None),
        (1064, None),
        (1290, None),
        (4321, ErrorKind.CONFLICT),
    ],
)
@pytest.mark.parametrize("driver", ["mysql+mysqldb", "mysql+pymysql", "mariadb+mysqldb"])
def test_the_numbers_of_mysql_mean_the_same_in_every_driver(driver, code, fault):
    """In mysqlclient, as in PyMySQL, the number is the first argument."""
    backend = backend_for(make_url(f"{driver}://host/name"), {"retry_codes": ["4321"]})
    error = OtherDriversError(code, "said the server")

    assert backend.classify(error, connecting=False, disconnected=False) is fault
    assert fault is None or fault.retryable


def test_no_lock_left_is_the_end_of_the_whole_transaction():
    """With 1206, InnoDB has no memory for another lock, and rolls back everything."""
    backend = backend_for(make_url("mysql+mysqldb://host/name"), {"retry_codes": None})

    assert backend.ended_transaction(OtherDriversError(1206, "lock table size"), None)
    assert not backend.ended_transaction(OtherDriversError(1062, "SAVEPOINT"), None)
    assert not backend.ended_transaction(
        OtherDriversError(1305, "PROCEDURE a does not exist"), None
    )


def test_the_socket_that_a_driver_hides_is_never_taken_for_a_quiet_one():
    """A connection of mysqlclient may have been closed by the server; it is asked each time."""
    backend = backend_for(make_url("mysql+mysqldb://host/name"), {"retry_codes": None})

    assert not backend.is_quiet(object())
