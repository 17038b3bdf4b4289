"""Stores the first rows; the tables are Alembic's to make."""

import argparse
import sys

from pyramid.paster import bootstrap, setup_logging

from .. import models


def setup_models(dbsession, names):
    """Add a model for each name."""
    for name in names:
        dbsession.add(models.MyModel(name=name, value=1))
        dbsession.flush()


def main(argv=sys.argv):
    """Store all names or none."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config_uri", help="such as development.ini")
    parser.add_argument("name", nargs="*", default=["one"])
    args = parser.parse_args(argv[1:])
    setup_logging(args.config_uri)
    with bootstrap(args.config_uri) as env, env["request"].tm:
        setup_models(env["request"].dbsession, args.name)


if __name__ == "__main__":
    main()
