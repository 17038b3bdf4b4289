"""PostgreSQL: a schema of the URL's database for each application, and two roles.

Everything that ``create`` changes is one transaction: it is done, or nothing of it is, and an
application that runs is denied nothing in between.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...exceptions import ProvisioningError
from ..passwords import new_password
from ..server import MASKED, Finding, Server, Step, execute, words
from ..tenant import Tenant
from .drift import ask, drifts, literal, quoted, roles
from .findings import prove_denied, prove_usable, seen_by_application, seen_by_everybody

PATIENCE = "30s"


# Any number that nobody else takes for an advisory lock; these are the letters sqa.
LOCK = 0x737161


ADMINISTRATORS = "SELECT rolname FROM pg_roles WHERE oid = 10 OR rolname = session_user"


# Those roles that an administrator who is no superuser cannot act for yet.
FOREIGN = """
    SELECT name FROM unnest(ARRAY[:owner, :user]) wanted (name)
    WHERE NOT (SELECT rolsuper FROM pg_roles WHERE rolname = session_user)
      AND NOT EXISTS (SELECT FROM pg_roles r
        WHERE r.rolname = name AND pg_has_role(session_user, r.oid, 'USAGE'))
"""


# The application whose schema this role looks into, as the schema's owner does.
OTHERS = """
    SELECT nspname FROM pg_db_role_setting own
    JOIN pg_roles ON pg_roles.oid = setrole JOIN pg_database d ON d.oid = setdatabase
    JOIN pg_namespace ON setconfig @> ARRAY['search_path=' || quote_ident(nspname)]
    WHERE datname = current_database() AND rolname = :user AND nspname <> :name
      AND EXISTS (SELECT FROM pg_db_role_setting theirs
        WHERE theirs.setrole = nspowner AND theirs.setdatabase = own.setdatabase
          AND theirs.setconfig @> own.setconfig)
"""


TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"


# A statement sees pg_stat_activity as it was at first, unless it says otherwise.
END = """
    BEGIN
      FOR i IN 1..300 LOOP
        PERFORM pg_stat_clear_snapshot();
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ({names});
        EXIT WHEN NOT FOUND;
        PERFORM pg_sleep(0.05);
        IF i = 300 THEN RAISE 'connections of the application do not end'; END IF;
      END LOOP;
    END"""


class PostgreSQLServer(Server):
    """A schema owned by the owner account, in which the runtime account reads and writes rows."""

    LONGEST_ACCOUNT = 63

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of the administrator, in the application's database.

        Raises ProvisioningError where the URL's user cannot be an application's account.
        """
        self._refuse_names()
        with super().connection() as connection:
            self._refuse_accounts(connection)
            connection.execute(text(f"SET lock_timeout = '{PATIENCE}'"))
            yield connection

    @classmethod
    def administrator_url(cls, application: Tenant, given: URL | None) -> URL:
        """Return the URL of the administrator: as *given*, else the login on libpq's socket.

        It is the socket of the application's port, in its folder where the URL has one. The
        driver is psycopg, which can hash a password, whatever the application's is.
        """
        url = application.url
        folder = str(url.query.get("host", ""))
        query = {name: url.query[name] for name in ("host", "port") if name in url.query}
        if not folder.startswith("/"):
            query.pop("host", None)
        socket = URL.create(url.drivername, port=url.port, query=query)
        found = super().administrator_url(application, given or socket)
        return found._replace(drivername="postgresql+psycopg")

    def differences(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps for what differs; none when nothing does."""
        with self.connection() as connection:
            found = list(drifts(connection, self.application))
            known = roles(connection)
            foreign = [row[0] for row in ask(connection, FOREIGN, self.application)]
        created = [item for item in found if item.statement.startswith("CREATE ROLE")]
        others = [item for item in found if item not in created]
        steps = [_statement(item.statement) for item in created]
        user, owner = self.application.user, self.application.owner
        password = self.application.password
        if password and not (user in known and self._logs_in(user, password)):
            steps += self.password_steps(user, password)
        if owner_password and not (owner in known and self._logs_in(owner, owner_password)):
            steps.append(_statement(f"ALTER ROLE {quoted(owner)} LOGIN"))
            steps += self.password_steps(owner, owner_password)
        steps += [_statement(f"GRANT {quoted(name)} TO CURRENT_USER") for name in foreign]
        return steps + [_statement(item.statement) for item in others]

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* in one transaction, then yield them."""
        with self.connection() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                for step in steps:
                    execute(connection, step)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
        yield from steps

    def prove(self) -> Sequence[str]:
        """Log in as the application, beside a neighbour that is made for the proof and dropped."""
        application = self.application
        with self.connection() as admin:
            left = [item.problem for item in drifts(admin, application)]
            if left:
                msg = f"{left[0]}, still: who has granted it has to revoke it."
                raise ProvisioningError(msg)
            with self.as_owner(None) as owner, self._application() as own:
                token = secrets.token_hex(8)
                return [
                    *prove_usable(own, owner, application, token),
                    *prove_denied(own, admin, application, token),
                ]

    def findings(self) -> Sequence[Finding]:
        """Return what is wrong on the server; the catalogs show it to every account."""
        if self.admin is None:
            with self._application() as engine, engine.connect() as connection:
                found = self._findings(connection)
        else:
            with self.connection() as connection:
                found = self._findings(connection)
        password = self.application.password
        user = self.application.user
        if password and self._logs_in(user, new_password()):
            problem = f"the server does not ask {user} for its password"
            advice = "have pg_hba.conf say scram-sha-256 for the application's database"
            found.append(Finding(problem, advice))
        return found

    def _findings(self, connection: Connection) -> list[Finding]:
        found = [
            Finding(item.problem, "psqa create repairs it")
            for item in drifts(connection, self.application)
        ]
        found += seen_by_everybody(connection, self.application)
        try:
            with self._application() as engine, engine.connect() as own:
                found += seen_by_application(own, self.application)
        except DBAPIError as error:
            found.append(Finding("the application cannot log in", words(error)))
        return found

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the step, in which the password is hashed: no log of the server has it."""
        with self.connection() as connection:
            driver: Any = connection.connection.driver_connection
            hashed = driver.pgconn.encrypt_password(password.encode(), account.encode())
        start = f"ALTER ROLE {quoted(account)} PASSWORD "
        return [Step(start + literal(hashed.decode()), start + MASKED)]

    def removal(self) -> Sequence[Step]:
        """Return the steps; only what is there is removed."""
        application = self.application
        with self.connection() as connection:
            known = [
                name for name in (application.user, application.owner) if name in roles(connection)
            ]
            schema = ask(connection, "SELECT FROM pg_namespace WHERE nspname = :name", application)
            owned = [
                item.statement
                for item in drifts(connection, application)
                if item.statement.startswith("ALTER DATABASE")
            ]
        both = ", ".join(map(quoted, known))
        names = ", ".join(map(literal, known))
        steps = [_statement(f"ALTER ROLE {quoted(name)} NOLOGIN") for name in known]
        if known:
            shown = f"{TERMINATE} WHERE usename IN ({names})"
            steps.append(Step("DO " + literal(END.format(names=names)), shown))
        statements = [f"DROP SCHEMA {quoted(application.name)} CASCADE"] if schema else []
        statements += owned
        if known:
            statements += [f"DROP OWNED BY {both}", f"DROP ROLE {both}"]
        return steps + [_statement(each) for each in statements]

    def remove(self) -> Iterator[Step]:
        """Remove the application: nobody can log in any more before the connections are ended."""
        steps = self.removal()
        first = [step for step in steps if step.statement.endswith(" NOLOGIN")]
        yield from self.run(first)
        yield from self.run([step for step in steps if step not in first])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out the runs for every application of this database, whose privileges they share."""
        with self.connection() as connection:
            # It ends with the connection, which the administrator's engine does not keep.
            take = f"SELECT pg_advisory_lock({LOCK})"
            execute(connection, Step(take, "Another run of psqa goes on"))
            yield

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend an engine of the owner account.

        Without a *password* the administrator becomes it, which needs none to be set.
        """
        if password is not None:
            with self.application.login(self.application.owner, password) as engine:
                yield engine
            return
        with self.connection() as connection:
            engine = connection.engine.execution_options(isolation_level="READ COMMITTED")
        role, schema = quoted(self.application.owner), quoted(self.application.name)

        def become_owner(connection: Connection) -> None:
            # For as long as the connection lasts, which is not kept either.
            connection.exec_driver_sql(f"SET ROLE {role}")
            connection.exec_driver_sql(f"SET search_path = {schema}")
            connection.commit()

        event.listen(engine, "engine_connect", become_owner)
        yield engine

    def _application(self) -> AbstractContextManager[Engine]:
        return self.application.login(self.application.user, self.application.password)

    def _logs_in(self, account: str, password: str) -> bool:
        try:
            with self.application.login(account, password) as engine, engine.connect():
                return True
        except DBAPIError:
            return False

    def _refuse_names(self) -> None:
        user = self.application.user
        longest = self.LONGEST_ACCOUNT
        problem = ""
        if "\0" in user or len(user.encode()) > longest:
            problem = f"its user has to be at most {longest} bytes, none of them zero"
        elif user in {"none", "public", self.application.owner} or user.startswith("pg_"):
            problem = f"its user {user!r} means something else; give the application one of its own"
        elif not self.application.url.database:
            problem = "it has no database; write that which the application's schema is to be in"
        if problem:
            msg = f"sqlalchemy.url: {problem}."
            raise ProvisioningError(msg)

    def _refuse_accounts(self, connection: Connection) -> None:
        application = self.application
        user = application.user
        if user in {row[0] for row in ask(connection, ADMINISTRATORS, application)}:
            msg = (
                f"sqlalchemy.url: its user {user!r} is an administrator; "
                "give the application a user of its own."
            )
            raise ProvisioningError(msg)
        others = ask(connection, OTHERS, application)
        if others:
            msg = (
                f"sqlalchemy.url: its user {user!r} is the account of {others[0][0]}, as its "
                "search_path says; give each application a user of its own."
            )
            raise ProvisioningError(msg)


def _statement(text: str) -> Step:
    return Step(text, text)
