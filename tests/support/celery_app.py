"""A Celery application whose worker has used its database before it forks.

The environment says where the database is, and in which folder the messages lie.
"""

import os
from pathlib import Path

from celery import Celery
from sqlalchemy import text

from pyramid_aalam_sqa import session_scope
from support.warmed_app import make

celery = Celery("forked", broker="filesystem://")
folder = Path(os.environ["SQA_TEST_CELERY_FOLDER"])
celery.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder / "control"),
}


@celery.task
@session_scope(attempts=3)
def note(session, token):
    """Store the token with the process, the connection, and what the database sees."""
    statement = "INSERT INTO seen SELECT :token, :process, CONNECTION_ID()"
    session.execute(text(statement), {"token": token, "process": os.getpid()})


application = make(os.environ["SQA_TEST_WARMED_URL"])
