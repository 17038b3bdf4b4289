"""Alembic's environment: it makes its engine itself, from the application's ini file."""

from alembic import context
from myapp.models.meta import Base
from pyramid.paster import get_appsettings, setup_logging

from pyramid_aalam_sqa import engine_from_settings

config = context.config
setup_logging(config.config_file_name)
settings = get_appsettings(config.config_file_name)


def run_migrations_offline():
    """Print the SQL; no connection is made."""
    context.configure(url=settings["sqlalchemy.url"], target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online():
    """Change the database; that of the tests where they have given a connection."""
    if given := config.attributes.get("connection"):
        migrate(given)
        return
    engine = engine_from_settings(settings)
    with engine.connect() as connection:
        migrate(connection)
    engine.dispose()


def migrate(connection):
    """Run the migrations on *connection*."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
