"""PostgreSQL: a schema of the URL's database for each application, and two roles.

Everything that ``create`` changes is one transaction, so that a failure leaves nothing half done
and a running application is denied nothing in between.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any, ClassVar

from psycopg import pq
from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from ...backends import LOCAL_HOSTS
from ...exceptions import ProvisioningError
from ..passwords import new_password
from ..server import MASKED, NEEDS_URL, Finding, Server, Step, error_text, execute, run_verbatim
from ..tenant import Tenant
from .catalog import quote_name, quote_text, roles_by_name, rows_about
from .drift import drifts
from .findings import seen_by_application, seen_by_everybody
from .identity import prove_same_server, shown_address
from .proof import prove_denied, prove_usable

# The key of psqa's advisory lock: the letters sqa, a number that nothing else is likely to use.
LOCK = 0x737161
ADMINISTRATORS = "SELECT rolname FROM pg_catalog.pg_roles WHERE oid = 10 OR rolname = session_user"
# The application's roles that an administrator, who is not a superuser, is not a member of yet.
NOT_A_MEMBER = """
    SELECT name FROM unnest(ARRAY[:owner, :user]) wanted (name)
    WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user)
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
        WHERE r.rolname = name AND pg_has_role(session_user, r.oid, 'USAGE'))
"""
# Another application whose account the user is: its search_path leads to a schema, and that of
# the schema's owner does too. Every role may set its own; what it may do there it cannot grant
# itself.
OTHER_APPLICATIONS = """
    SELECT nspname FROM pg_catalog.pg_db_role_setting own
    JOIN pg_catalog.pg_roles ON pg_roles.oid = setrole
    JOIN pg_catalog.pg_database d ON d.oid = setdatabase
    JOIN pg_catalog.pg_namespace ON setconfig @> ARRAY['search_path=' || quote_ident(nspname)]
    WHERE datname = current_database() AND rolname = :user AND nspname <> :name
      AND EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee = setrole)
      AND EXISTS (SELECT FROM pg_catalog.pg_db_role_setting theirs
        WHERE theirs.setrole = nspowner AND theirs.setdatabase = own.setdatabase
          AND theirs.setconfig @> own.setconfig)
"""
# What the role has in another schema or database, if it has nothing in this application's schema.
OTHER_USE = """
    SELECT coalesce('the database ' || datname, type || ' ' || identity)
    FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles ON pg_roles.oid = refobjid
    LEFT JOIN pg_catalog.pg_database d ON d.oid = dbid AND datname <> current_database()
    LEFT JOIN LATERAL (SELECT * FROM pg_catalog.pg_identify_object(s.classid, s.objid, 0)
        WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
    ) thing ON true
    WHERE refclassid = 'pg_authid'::regclass AND rolname = :user AND deptype IN ('a', 'o')
      AND :user <> :name AND (datname IS NOT NULL OR type = 'schema' OR schema <> :name)
      AND (type, identity) IS DISTINCT FROM ('schema', quote_ident(:name))
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_namespace CROSS JOIN LATERAL aclexplode(nspacl)
        WHERE nspname = :name AND grantee = pg_roles.oid)
    ORDER BY 1 LIMIT 1
"""
# Who holds psqa's lock, where that is not a role that may make roles: a connection, or a prepared
# transaction, which needs none.
FOREIGN_HOLDERS = f"""
    SELECT l.pid, gid FROM pg_catalog.pg_locks l
    JOIN pg_catalog.pg_database d ON d.oid = l.database AND datname = current_database()
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
    LEFT JOIN pg_catalog.pg_locks t ON l.pid IS NULL AND t.locktype = 'transactionid'
      AND t.virtualtransaction = l.virtualtransaction
    LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction = t.transactionid
    JOIN pg_catalog.pg_roles r ON r.rolname = coalesce(a.usename, x.owner)
    WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = {LOCK} AND l.granted
      AND NOT rolsuper AND NOT rolcreaterole
"""  # noqa: S608 - a constant
PREPARED = """
    SELECT gid FROM pg_catalog.pg_prepared_xacts
    WHERE database = current_database() AND owner IN (:user, :owner)
"""
TERMINATE = "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
# A login that had begun before is listed a moment later, so that no connection is to be seen twice.
# Within a transaction pg_stat_activity stays as it was at first, unless its snapshot is cleared.
END_CONNECTIONS = """
    DECLARE quiet int := 0;
    BEGIN
      FOR i IN 0..{rounds} LOOP
        PERFORM pg_catalog.pg_stat_clear_snapshot();
        PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
        WHERE usename IN ({names});
        quiet := CASE WHEN FOUND THEN 0 ELSE quiet + 1 END;
        EXIT WHEN quiet = 2;
        IF i = {rounds} THEN RAISE 'connections of the application do not end'; END IF;
        PERFORM pg_catalog.pg_sleep(0.05);
      END LOOP;
    END"""
ROUNDS_PER_SECOND = 20
# How often the wait for a lock is interrupted to end the application's connections.
LOCK_TRIES = 10
# The first libpq with require_auth.
REQUIRE_AUTH_SINCE = 160000
LOCKED = "canceling statement due to lock timeout"


class PostgreSQLServer(Server):
    """A schema owned by the owner account, in which the runtime account reads and writes rows."""

    LONGEST_ACCOUNT = 63

    # An application may have planted a function or an operator in a schema that would be searched.
    ADMINISTRATOR_ARGUMENTS: ClassVar[Mapping[str, str]] = {
        "options": "-c search_path=pg_catalog,pg_temp",
        **({"require_auth": "!password,!md5"} if pq.version() >= REQUIRE_AUTH_SINCE else {}),
    }

    @classmethod
    def administrator_url(cls, tenant: Tenant, given: URL | None) -> URL:
        """Return the *given* URL, or the login on libpq's socket; it leads to the same database.

        The socket is that of the application's port, in the application's folder if its URL has
        one. The driver is psycopg, whatever the application's is, because it can hash a password.
        Raises ProvisioningError when the URL leads to another machine.
        """
        url = tenant.url
        arguments = {**url.query, **tenant.options.get("connect_args", {})}
        host = arguments.get("host", url.host) or arguments.get("hostaddr") or None
        folder = str(host) if str(host).startswith(("/", "@")) else None
        if given is None and not folder and (host not in LOCAL_HOSTS or "service" in arguments):
            msg = f"{tenant.url_key} leads to {host}, which is another machine: {NEEDS_URL}"
            raise ProvisioningError(msg)
        query = {"port": str(arguments["port"])} if "port" in arguments else {}
        if folder:
            query["host"] = folder
        socket = URL.create(url.drivername, port=url.port, query=query)
        found = super().administrator_url(tenant, given or socket)
        return found._replace(drivername="postgresql+psycopg")

    def describe(self) -> str:
        """Return for example ``PostgreSQL 15.4 at localhost, port 5432, as postgres``."""
        with self.connection() as connection:
            query = "SELECT pg_catalog.current_setting('server_version'), session_user"
            version, user = connection.execute(text(query)).one()
            return f"PostgreSQL {version.split()[0]} at {shown_address(self.tenant)}, as {user}"

    def prove_same_server(self, connection: Connection) -> None:
        """Find in the server's list a connection that was made at the application's address."""
        prove_same_server(connection, self.tenant)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection of the administrator, in the application's database.

        Raises ProvisioningError where the URL's user cannot be an application's account.
        """
        self._refuse_names()
        with super().connection() as connection:
            self._refuse_accounts(connection)
            # Each try of a step waits for a part of the time. PostgreSQL takes 0 for no limit.
            milliseconds = max(1, int(self.wait * 1000 / LOCK_TRIES))
            connection.execute(text(f"SET lock_timeout = {milliseconds}"))
            yield connection

    def _refuse_names(self) -> None:
        user = self.tenant.user
        longest = self.LONGEST_ACCOUNT
        problem = ""
        if "\0" in user or len(user.encode()) > longest:
            problem = f"its user has to be at most {longest} bytes, none of them zero"
        elif user in {"none", "public", self.tenant.owner} or user.startswith("pg_"):
            problem = f"its user {user!r} means something else; give the application one of its own"
        elif not self.tenant.url.database:
            problem = "it has no database; write that which the application's schema is to be in"
        if problem:
            msg = f"{self.tenant.url_key}: {problem}."
            raise ProvisioningError(msg)

    def _refuse_accounts(self, connection: Connection) -> None:
        user = self.tenant.user
        if user in {row[0] for row in rows_about(connection, ADMINISTRATORS, self.tenant)}:
            msg = (
                f"{self.tenant.url_key}: its user {user!r} is an administrator; "
                "give the application a user of its own."
            )
            raise ProvisioningError(msg)
        others = rows_about(connection, OTHER_APPLICATIONS, self.tenant)
        if others:
            msg = (
                f"{self.tenant.url_key}: its user {user!r} is the account of {others[0][0]}, as "
                "its search_path says; give each application a user of its own."
            )
            raise ProvisioningError(msg)
        elsewhere = rows_about(connection, OTHER_USE, self.tenant)
        if elsewhere:
            msg = (
                f"{self.tenant.url_key}: its user {user!r} is used for {elsewhere[0][0]}; "
                "give the application a user of its own."
            )
            raise ProvisioningError(msg)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out the runs for all applications of this database, whose privileges they share.

        Every role may take such a lock. A role that may not make roles is not an administrator's:
        its connection is ended, or its prepared transaction rolled back, and the lock is free.
        """
        deadline = monotonic() + self.wait
        with self.connection() as connection:
            # The lock ends with the connection, which the administrator's engine does not keep.
            take = text(f"SELECT pg_catalog.pg_try_advisory_lock({LOCK})")
            self.doing = "waiting for another psqa"
            while not connection.scalar(take):
                for pid, prepared in rows_about(connection, FOREIGN_HOLDERS, self.tenant):
                    end = f"SELECT pg_catalog.pg_terminate_backend({pid})"
                    _run_if_possible(connection, end if pid else _roll_back(prepared))
                if monotonic() > deadline:
                    msg = f"Another psqa is at work in {self.tenant.url.database}: try again later."
                    raise ProvisioningError(msg)
                sleep(0.05)
            yield

    def plan(self, owner_password: str | None = None) -> Sequence[Step]:
        """Return the steps for everything that differs; an empty list when nothing does.

        Roles are created first. Then they get passwords, and the administrator becomes a member.
        """
        tenant = self.tenant
        with self.connection() as connection:
            found = list(drifts(connection, tenant, owner_logs_in=bool(owner_password)))
            known = roles_by_name(connection)
            foreign = [row[0] for row in rows_about(connection, NOT_A_MEMBER, tenant)]
        created = [item for item in found if item.statement.startswith("CREATE ROLE")]
        others = [item for item in found if item not in created]
        steps = [Step(item.statement) for item in created]
        user, password = tenant.user, tenant.password
        if password and not (user in known and self._logs_in(user, password)):
            steps += self.password_steps(user, password)
        owner = tenant.owner
        if owner_password and not (owner in known and self._logs_in(owner, owner_password)):
            steps.append(Step(f"ALTER ROLE {quote_name(owner)} LOGIN"))
            steps += self.password_steps(owner, owner_password)
        steps += [Step(f"GRANT {quote_name(name)} TO CURRENT_USER") for name in foreign]
        return steps + [Step(item.statement) for item in others]

    def run(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Run *steps* in one transaction, then yield them.

        Where the application holds a lock on what is to be changed, its connections are ended and
        the steps are run again.
        """
        deadline = monotonic() + self.wait
        with self.connection() as connection:
            while not self._run_at_once(connection, steps, deadline):
                self._end_work(connection)
        yield from steps

    def _run_at_once(self, connection: Connection, steps: Sequence[Step], deadline: float) -> bool:
        """Run *steps* as a whole; false when a lock is held and there is time left."""
        connection.exec_driver_sql("BEGIN")
        try:
            for step in steps:
                self.doing = str(step)
                execute(connection, step)
            connection.exec_driver_sql("COMMIT")
        except BaseException as error:
            connection.exec_driver_sql("ROLLBACK")
            if LOCKED in str(error) and monotonic() < deadline:
                return False
            raise
        return True

    def _end_work(self, connection: Connection) -> None:
        """End the connections of the application, and roll back what it has prepared."""
        for (gid,) in rows_about(connection, PREPARED, self.tenant):
            _run_if_possible(connection, _roll_back(gid))
        rows_about(connection, f"{TERMINATE} WHERE usename IN (:user, :owner)", self.tenant)

    def prove(self, owner_password: str | None = None) -> Sequence[str]:
        """Log in as the application, beside a schema that is made for the proof and dropped."""
        tenant = self.tenant
        with self.connection() as admin:
            rest = drifts(admin, tenant, owner_logs_in=bool(owner_password))
            left = [item.problem for item in rest]
            if left:
                msg = f"{left[0]}, still: only the role that granted it can revoke it."
                raise ProvisioningError(msg)
            with self.as_owner(owner_password) as owner, self.as_application() as own:
                token = secrets.token_hex(8)
                return [
                    *prove_usable(own, owner, tenant, token),
                    *prove_denied(own, admin, tenant, token),
                ]

    def check(self, owner_password: str | None = None) -> Sequence[Finding]:
        """Return what is wrong on the server; the catalogs show it to every account."""
        if self.admin is None:
            with self.as_application() as engine, engine.connect() as connection:
                found = self._findings(connection, owner_password)
        else:
            with self.connection() as connection:
                found = self._findings(connection, owner_password)
        user, password = self.tenant.user, self.tenant.password
        if password and self._logs_in(user, new_password()):
            problem = f"the server does not ask {user} for its password"
            advice = "have pg_hba.conf say scram-sha-256 for the application's database"
            found.append(Finding(problem, advice))
        return found

    def _findings(self, connection: Connection, owner_password: str | None) -> list[Finding]:
        found = [
            Finding(item.problem, "psqa create repairs it")
            for item in drifts(connection, self.tenant, owner_logs_in=bool(owner_password))
        ]
        found += seen_by_everybody(connection, self.tenant)
        try:
            with self.as_application() as engine, engine.connect() as own:
                found += seen_by_application(own, self.tenant)
        except DBAPIError as error:
            found.append(Finding("the application cannot log in", error_text(error)))
        return found

    def password_steps(self, account: str, password: str) -> Sequence[Step]:
        """Return the step, in which the password is hashed so that no log of the server has it."""
        with self.connection() as connection:
            driver: Any = connection.connection.driver_connection
            hashed = driver.pgconn.encrypt_password(password.encode(), account.encode())
        start = f"ALTER ROLE {quote_name(account)} PASSWORD "
        return [Step(start + quote_text(hashed.decode()), start + MASKED)]

    def plan_removal(self) -> Sequence[Step]:
        """Return the steps for what is there: no logins, no connections, no schema, no roles."""
        tenant = self.tenant
        with self.connection() as connection:
            roles = roles_by_name(connection)
            known = [name for name in (tenant.user, tenant.owner) if name in roles]
            query = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = :name"
            schema = rows_about(connection, query, tenant)
            owned = [
                item.statement
                for item in drifts(connection, tenant)
                if item.statement.startswith("ALTER DATABASE")
            ]
        steps = [Step(f"ALTER ROLE {quote_name(name)} NOLOGIN") for name in known]
        if known:
            names = ", ".join(map(quote_text, known))
            rounds = max(2, int(self.wait * ROUNDS_PER_SECOND))
            block = END_CONNECTIONS.format(names=names, rounds=rounds)
            steps.append(Step("DO " + quote_text(block), f"{TERMINATE} WHERE usename IN ({names})"))
        if schema:
            steps.append(Step(f"DROP SCHEMA {quote_name(tenant.name)} CASCADE"))
        # Other applications may live in a database that the account owns.
        steps += [Step(statement) for statement in owned]
        if known:
            both = ", ".join(map(quote_name, known))
            steps += [Step(f"DROP OWNED BY {both}"), Step(f"DROP ROLE {both}")]
        return steps

    def remove(self) -> Iterator[Step]:
        """Remove the application; no login is possible before the connections are ended."""
        with self.connection() as connection:
            for (gid,) in rows_about(connection, PREPARED, self.tenant):
                step = Step(_roll_back(gid))
                execute(connection, step)
                yield step
        steps = self.plan_removal()
        first = [step for step in steps if step.statement.endswith(" NOLOGIN")]
        yield from self.run(first)
        yield from self.run([step for step in steps if step not in first])

    @contextmanager
    def as_owner(self, password: str | None) -> Iterator[Engine]:
        """Lend an engine of the owner account, which logs in itself.

        It never works in the administrator's session: there a function of the application would run
        with the administrator's rights. Without a *password* the account may log in for the block
        alone, with a random one.
        """
        owner = self.tenant.owner
        once = password or new_password()
        if password is None:
            login = Step(f"ALTER ROLE {quote_name(owner)} LOGIN")
            list(self.run([*self.password_steps(owner, once), login]))
        try:
            with self.tenant.login(owner, once) as engine:
                yield engine
        finally:
            if password is None:
                list(self.run([Step(f"ALTER ROLE {quote_name(owner)} NOLOGIN PASSWORD NULL")]))

    def _logs_in(self, account: str, password: str) -> bool:
        try:
            with self.tenant.login(account, password) as engine, engine.connect():
                return True
        except DBAPIError:
            return False


def _roll_back(gid: str) -> str:
    return f"ROLLBACK PREPARED {quote_text(gid)}"


def _run_if_possible(connection: Connection, statement: str) -> None:
    """Run *statement*, which may find that its work was done meanwhile."""
    with suppress(DBAPIError):
        run_verbatim(connection, statement)
