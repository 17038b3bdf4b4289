"""Compares what PostgreSQL's catalogs say with what an application's accounts should have.

Every query here may be made by any account: the catalogs are open to all.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.engine import Connection

from ..tenant import Tenant

# Attributes of a role that reach further than any schema.
POWERS = {
    "rolsuper": "SUPERUSER",
    "rolcreatedb": "CREATEDB",
    "rolcreaterole": "CREATEROLE",
    "rolreplication": "REPLICATION",
    "rolbypassrls": "BYPASSRLS",
}


# What the runtime account may do, what the owner account may do with what is not its own.
# Everybody may do nothing.
NOTHING: frozenset[str] = frozenset()


VISIT = frozenset({"CONNECT", "TEMPORARY"})


RIGHTS = {
    "database": (VISIT, VISIT),
    "schema": (frozenset({"USAGE"}), NOTHING),
    "public": (NOTHING, NOTHING),
    "table": (frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}), NOTHING),
    "sequence": (frozenset({"USAGE"}), NOTHING),
    "default": (NOTHING, NOTHING),
}


# What GRANT and REVOKE call the kinds that pg_identify_object calls otherwise.
KINDS = {
    "aggregate": "FUNCTION",
    "foreign table": "TABLE",
    "foreign-data wrapper": "FOREIGN DATA WRAPPER",
    "materialized view": "TABLE",
    "parameter ACL": "PARAMETER",
    "server": "FOREIGN SERVER",
    "view": "TABLE",
}


OWNED_BY_OTHERS = """
    SELECT format('%I.%I', nspname, relname), pg_get_userbyid(relowner)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :name AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND pg_get_userbyid(relowner) <> :owner AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
          AND (deptype = 'e' OR relkind = 'S' AND deptype IN ('a', 'i')))
    ORDER BY 1
"""


# Each object, with a row for each privilege that is not its holder's, or with one row without.
# What was never granted or revoked has no list of privileges, but those of acldefault.
PRIVILEGES = """
    WITH object (label, prefix, target, holder, acl) AS (
        SELECT 'database', '', 'DATABASE ' || quote_ident(datname), datdba,
            coalesce(datacl, acldefault('d', datdba))
        FROM pg_database WHERE datname = current_database()
        UNION ALL
        SELECT label, '', 'SCHEMA ' || quote_ident(schema), nspowner,
            coalesce(nspacl, acldefault('n', nspowner))
        FROM (VALUES ('schema', :name), ('public', 'public')) wanted (label, schema)
        LEFT JOIN pg_namespace ON nspname = schema
        WHERE label = 'schema' OR nspname IS NOT NULL
        UNION ALL
        SELECT label, 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(:owner)
            || coalesce(' IN SCHEMA ' || quote_ident(schema), '') || ' ', kind, defaclrole,
            defaclacl
        FROM (VALUES ('table', 'TABLES', 'r', :name), ('sequence', 'SEQUENCES', 'S', :name),
            ('default', 'TABLES', 'r', NULL), ('default', 'SEQUENCES', 'S', NULL)
        ) wanted (label, kind, letter, schema)
        LEFT JOIN pg_default_acl ON defaclobjtype = letter::"char"
            AND pg_get_userbyid(defaclrole) = :owner
            AND defaclnamespace = coalesce(
                (SELECT oid FROM pg_namespace WHERE nspname = schema), 0::oid)
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, '',
            CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
            || format('%I.%I', nspname, relname), relowner,
            coalesce(relacl, acldefault(
                CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname = :name AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    )
    SELECT label, prefix, target, privilege_type, is_grantable,
        CASE grantee WHEN 0 THEN '' ELSE pg_get_userbyid(grantee) END AS grantee
    FROM object LEFT JOIN LATERAL (
        SELECT * FROM aclexplode(acl) WHERE grantee <> holder
            AND NOT (label = 'public' AND privilege_type = 'USAGE')
    ) held ON true
    ORDER BY prefix <> '', target, prefix, privilege_type
"""


# Whatever else in this database, or shared by all, names one of the accounts.
ELSEWHERE = """
    SELECT rolname, deptype::text, type, identity
    FROM pg_shdepend s JOIN pg_roles ON pg_roles.oid = refobjid
    CROSS JOIN LATERAL pg_identify_object(s.classid, s.objid, 0)
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner)
      AND deptype IN ('a', 'o')
      AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
      AND schema IS DISTINCT FROM :name
      AND (type, identity) NOT IN (('schema', quote_ident(:name)),
                                   ('database', quote_ident(current_database())))
      AND NOT (s.classid = 'pg_default_acl'::regclass AND (deptype = 'o' OR EXISTS (
        SELECT FROM pg_default_acl
        WHERE oid = s.objid AND pg_get_userbyid(defaclrole) = :owner)))
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""


MEMBERSHIPS = """
    SELECT m.rolname, g.rolname
    FROM pg_auth_members JOIN pg_roles m ON m.oid = member JOIN pg_roles g ON g.oid = roleid
    WHERE m.rolname IN (:user, :owner) GROUP BY 1, 2 ORDER BY 1, 2
"""


SEARCH_PATHS = """
    SELECT rolname FROM pg_db_role_setting
    JOIN pg_roles ON pg_roles.oid = setrole JOIN pg_database d ON d.oid = setdatabase
    WHERE datname = current_database()
      AND setconfig @> ARRAY['search_path=' || quote_ident(:name)]
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it should be, and the statement that makes it so."""

    problem: str
    statement: str


def quoted(name: str) -> str:
    """Return *name* as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: str) -> str:
    """Return *value* as a string constant, whatever the server takes a backslash for."""
    escaped = value.replace("'", "''")
    return " E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in value else f"'{escaped}'"


def ask(connection: Connection, query: str, application: Tenant) -> list[Any]:
    """Return the rows of *query* about *application*."""
    known = {"name": application.name, "user": application.user, "owner": application.owner}
    return list(connection.execute(text(query), known))


def roles(connection: Connection) -> Mapping[str, Row[Any]]:
    """Return what each role is, by its name."""
    columns = ", ".join(["rolcanlogin", *POWERS])
    found = connection.execute(
        text(f"SELECT rolname, {columns}, rolvaliduntil < now() AS expired FROM pg_roles")  # noqa: S608 - constants
    )
    return {row.rolname: row for row in found}


def accounts(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Compare the two roles, but for their passwords; those that are missing are made."""
    known = roles(connection)
    for name, login in ((application.owner, "NOLOGIN"), (application.user, "LOGIN")):
        role = known.get(name)
        if role is None:
            yield Drift(f"the role {name} is missing", f"CREATE ROLE {quoted(name)} {login}")
            continue
        if login == "LOGIN" and not role.rolcanlogin:
            yield Drift(f"the role {name} may not log in", f"ALTER ROLE {quoted(name)} LOGIN")
        if role.expired:
            forever = f"ALTER ROLE {quoted(name)} VALID UNTIL 'infinity'"
            yield Drift(f"the password of {name} has expired", forever)


def powers(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Take from the two roles what reaches further than any schema."""
    known = roles(connection)
    for name in known.keys() & {application.owner, application.user}:
        for column, power in POWERS.items():
            if getattr(known[name], column):
                problem = f"the role {name} is {power}"
                yield Drift(problem, f"ALTER ROLE {quoted(name)} NO{power}")


def ownership(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Compare who owns the database, the schema and what is in it.

    Who owns a thing may do everything with it, and open it to others.
    """
    name, owner = quoted(application.name), quoted(application.owner)
    query = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = :name"
    schema = ask(connection, query, application)
    if not schema:
        problem = f"the schema {application.name} is missing"
        yield Drift(problem, f"CREATE SCHEMA {name} AUTHORIZATION {owner}")
    elif schema[0][0] != application.owner:
        problem = f"the schema {application.name} belongs to {schema[0][0]}"
        yield Drift(problem, f"ALTER SCHEMA {name} OWNER TO {owner}")
    query = """
        SELECT quote_ident(datname), pg_get_userbyid(datdba) FROM pg_database
        WHERE datname = current_database() AND pg_get_userbyid(datdba) IN (:user, :owner)"""
    for database, holder in ask(connection, query, application):
        problem = f"the database {database} belongs to {holder}"
        yield Drift(problem, f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
    for table, holder in ask(connection, OWNED_BY_OTHERS, application):
        yield Drift(f"{table} belongs to {holder}", f"ALTER TABLE {table} OWNER TO {owner}")


def privileges(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Compare what the accounts, and everybody, may do; what is missing comes first."""
    held: dict[tuple[str, str, str], dict[str, dict[str, bool]]] = {}
    for row in ask(connection, PRIVILEGES, application):
        grantees = held.setdefault((row.label, row.prefix, row.target), {})
        if row.privilege_type:
            grantees.setdefault(row.grantee, {})[row.privilege_type] = row.is_grantable
    too_much: list[Drift] = []
    for (label, prefix, target), grantees in held.items():
        user, owner = RIGHTS[label]
        for account, wanted in (
            (application.user, user),
            (application.owner, owner),
            ("", NOTHING),
        ):
            found = grantees.get(account, {})
            missing = wanted - found.keys()
            if missing:
                yield _missing(missing, prefix, target, account)
            too_much += _too_much(wanted, found, prefix, target, account)
    yield from too_much


def _missing(privileges: Collection[str], prefix: str, target: str, account: str) -> Drift:
    names = ", ".join(sorted(privileges))
    return Drift(
        f"{account} lacks {names} on {_place(prefix, target)}",
        f"{prefix}GRANT {names} ON {target} TO {quoted(account)}",
    )


def _too_much(
    wanted: Collection[str], found: Mapping[str, bool], prefix: str, target: str, account: str
) -> Iterator[Drift]:
    grantee = quoted(account) if account else "PUBLIC"
    place = _place(prefix, target)
    extra = sorted(found.keys() - wanted)
    if extra:
        names = ", ".join(extra)
        problem = f"{account or 'PUBLIC'} has {names} on {place}"
        yield Drift(problem, f"{prefix}REVOKE {names} ON {target} FROM {grantee}")
    passed_on = sorted(name for name, grantable in found.items() if grantable and name in wanted)
    if passed_on:
        names = ", ".join(passed_on)
        problem = f"{account} may grant {names} on {place} to others"
        revoke = f"{prefix}REVOKE GRANT OPTION FOR {names} ON {target} FROM {grantee}"
        yield Drift(problem, revoke)


def _place(prefix: str, target: str) -> str:
    return f"new {target}" if prefix else target


def elsewhere(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Take from the accounts what they may do outside the schema, and whom they may become."""
    for row in ask(connection, ELSEWHERE, application):
        if row.deptype == "a":
            account = quoted(row.rolname)
            problem = f"{row.rolname} has privileges on {row.type} {row.identity}"
            if row.type == "default acl":
                # Its identity reads "for role x in schema y on tables".
                whose, _, what = row.identity.rpartition(" on ")
                revoke = f"ALTER DEFAULT PRIVILEGES {whose} REVOKE ALL ON {what} FROM {account}"
            else:
                kind = KINDS.get(row.type, row.type.upper())
                revoke = f"REVOKE ALL ON {kind} {row.identity} FROM {account}"
            yield Drift(problem, revoke)
    for member, role in ask(connection, MEMBERSHIPS, application):
        problem = f"{member} is a member of {role}"
        yield Drift(problem, f"REVOKE {quoted(role)} FROM {quoted(member)}")


def search_paths(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Compare where the accounts look for what is named without a schema."""
    known = {row[0] for row in ask(connection, SEARCH_PATHS, application)}
    [[database]] = ask(connection, "SELECT quote_ident(current_database())", application)
    for account in (application.owner, application.user):
        if account not in known:
            yield Drift(
                f"the search_path of {account} is not {application.name}",
                f"ALTER ROLE {quoted(account)} IN DATABASE {database} "
                f"SET search_path = {quoted(application.name)}",
            )


def drifts(connection: Connection, application: Tenant) -> Iterator[Drift]:
    """Compare everything but passwords; what gives comes before what takes."""
    for compare in (accounts, ownership, search_paths, privileges, elsewhere, powers):
        yield from compare(connection, application)
