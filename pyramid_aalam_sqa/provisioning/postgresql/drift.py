"""Compares what PostgreSQL's catalogs say with what an application's accounts should have.

The catalogs are open to every account, so that each query works for the application's own too.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from ..tenant import Tenant
from .catalog import POWERS, quote_name, roles_by_name, rows_about

NOTHING: frozenset[str] = frozenset()
VISIT = frozenset({"CONNECT", "TEMPORARY"})
# What the runtime account may do, and what the owner account may do with what it does not own.
# PUBLIC, which is every account, may do nothing.
RIGHTS = {
    "database": (VISIT, VISIT),
    "schema": (frozenset({"USAGE"}), NOTHING),
    "public": (NOTHING, NOTHING),
    "table": (frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"}), NOTHING),
    "sequence": (frozenset({"USAGE"}), NOTHING),
    "default": (NOTHING, NOTHING),
}
# What GRANT and REVOKE call a kind of object, where pg_identify_object has another name for it.
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
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :name AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND pg_get_userbyid(relowner) <> :owner AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
          AND (deptype = 'e' OR relkind = 'S' AND deptype IN ('a', 'i')))
    ORDER BY 1
"""
# Each object in one row for each privilege that others than its owner have, or in one row without.
# An object on which nothing was ever granted has no list of privileges, but those of acldefault.
PRIVILEGES = """
    WITH object (label, prefix, target, holder, acl) AS (
        SELECT 'database', '', 'DATABASE ' || quote_ident(datname), datdba,
            coalesce(datacl, acldefault('d', datdba))
        FROM pg_catalog.pg_database WHERE datname = current_database()
        UNION ALL
        SELECT label, '', 'SCHEMA ' || quote_ident(schema), nspowner,
            coalesce(nspacl, acldefault('n', nspowner))
        FROM (VALUES ('schema', :name), ('public', 'public')) wanted (label, schema)
        LEFT JOIN pg_catalog.pg_namespace ON nspname = schema
        WHERE label = 'schema' OR nspname IS NOT NULL
        UNION ALL
        SELECT label, 'ALTER DEFAULT PRIVILEGES FOR ROLE ' || quote_ident(:owner)
            || coalesce(' IN SCHEMA ' || quote_ident(schema), '') || ' ', kind, defaclrole,
            defaclacl
        FROM (VALUES ('table', 'TABLES', 'r', :name), ('sequence', 'SEQUENCES', 'S', :name),
            ('default', 'TABLES', 'r', NULL), ('default', 'SEQUENCES', 'S', NULL)
        ) wanted (label, kind, letter, schema)
        LEFT JOIN pg_catalog.pg_default_acl ON defaclobjtype = letter::"char"
            AND pg_get_userbyid(defaclrole) = :owner
            AND defaclnamespace = coalesce(
                (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = schema), 0::oid)
        UNION ALL
        SELECT CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, '',
            CASE relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END
            || format('%I.%I', nspname, relname), relowner,
            coalesce(relacl, acldefault(
                CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner))
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = relnamespace
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
# Objects outside the schema, in this database or shared by all, on which an account has something.
ELSEWHERE = """
    SELECT rolname, deptype::text, type, identity
    FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_roles ON pg_roles.oid = refobjid
    CROSS JOIN LATERAL pg_catalog.pg_identify_object(s.classid, s.objid, 0)
    WHERE refclassid = 'pg_authid'::regclass AND rolname IN (:user, :owner)
      AND deptype IN ('a', 'o')
      AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
      AND schema IS DISTINCT FROM :name
      AND (type, identity) NOT IN (('schema', quote_ident(:name)),
                                   ('database', quote_ident(current_database())))
      AND NOT (s.classid = 'pg_default_acl'::regclass AND (deptype = 'o' OR EXISTS (
        SELECT FROM pg_catalog.pg_default_acl
        WHERE oid = s.objid AND pg_get_userbyid(defaclrole) = :owner)))
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
MEMBERSHIPS = """
    SELECT m.rolname, g.rolname
    FROM pg_catalog.pg_auth_members JOIN pg_catalog.pg_roles m ON m.oid = member
    JOIN pg_catalog.pg_roles g ON g.oid = roleid
    WHERE m.rolname IN (:user, :owner) GROUP BY 1, 2 ORDER BY 1, 2
"""
SEARCH_PATHS = """
    SELECT rolname FROM pg_catalog.pg_db_role_setting
    JOIN pg_catalog.pg_roles ON pg_roles.oid = setrole
    JOIN pg_catalog.pg_database d ON d.oid = setdatabase
    WHERE datname = current_database()
      AND setconfig @> ARRAY['search_path=' || quote_ident(:name)]
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it should be, and the statement that makes it so."""

    problem: str
    statement: str


def drifts(
    connection: Connection, tenant: Tenant, *, owner_logs_in: bool = False
) -> Iterator[Drift]:
    """Yield everything that differs but passwords; grants come before revokes.

    The owner account may log in only if *owner_logs_in*.
    """
    yield from compare_accounts(connection, tenant)
    if not owner_logs_in:
        yield from compare_owner_login(connection, tenant)
    for compare in (
        compare_owners,
        compare_search_paths,
        compare_privileges,
        compare_elsewhere,
        compare_powers,
    ):
        yield from compare(connection, tenant)


def compare_accounts(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield which of the two roles is missing, may not log in, or has an expired password."""
    known = roles_by_name(connection)
    for name, login in ((tenant.owner, "NOLOGIN"), (tenant.user, "LOGIN")):
        role = known.get(name)
        if role is None:
            yield Drift(f"the role {name} is missing", f"CREATE ROLE {quote_name(name)} {login}")
            continue
        if login == "LOGIN" and not role.rolcanlogin:
            yield Drift(f"the role {name} may not log in", f"ALTER ROLE {quote_name(name)} LOGIN")
        if role.expired:
            forever = f"ALTER ROLE {quote_name(name)} VALID UNTIL 'infinity'"
            yield Drift(f"the password of {name} has expired", forever)


def compare_owner_login(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield that the owner may log in: it may have an old password, or none."""
    role = roles_by_name(connection).get(tenant.owner)
    if role is not None and role.rolcanlogin:
        problem = f"the role {tenant.owner} may log in, and its password may be known"
        yield Drift(problem, f"ALTER ROLE {quote_name(tenant.owner)} NOLOGIN PASSWORD NULL")


def compare_powers(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield what the two roles may do beyond any schema."""
    known = roles_by_name(connection)
    for name in known.keys() & {tenant.owner, tenant.user}:
        for column, power in POWERS.items():
            if getattr(known[name], column):
                problem = f"the role {name} is {power}"
                yield Drift(problem, f"ALTER ROLE {quote_name(name)} NO{power}")


def compare_owners(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield where the database, the schema or an object in it has the wrong owner.

    The owner of an object may do everything with it, and may grant it to others.
    """
    name, owner = quote_name(tenant.name), quote_name(tenant.owner)
    query = "SELECT pg_get_userbyid(nspowner) FROM pg_catalog.pg_namespace WHERE nspname = :name"
    schema = rows_about(connection, query, tenant)
    if not schema:
        problem = f"the schema {tenant.name} is missing"
        yield Drift(problem, f"CREATE SCHEMA {name} AUTHORIZATION {owner}")
    elif schema[0][0] != tenant.owner:
        problem = f"the schema {tenant.name} belongs to {schema[0][0]}"
        yield Drift(problem, f"ALTER SCHEMA {name} OWNER TO {owner}")
    query = """
        SELECT quote_ident(datname), pg_get_userbyid(datdba) FROM pg_catalog.pg_database
        WHERE datname = current_database() AND pg_get_userbyid(datdba) IN (:user, :owner)"""
    for database, holder in rows_about(connection, query, tenant):
        problem = f"the database {database} belongs to {holder}"
        yield Drift(problem, f"ALTER DATABASE {database} OWNER TO CURRENT_USER")
    for table, holder in rows_about(connection, OWNED_BY_OTHERS, tenant):
        yield Drift(f"{table} belongs to {holder}", f"ALTER TABLE {table} OWNER TO {owner}")


def compare_privileges(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield what the two accounts lack in the schema, then what they or PUBLIC should not have."""
    held: dict[tuple[str, str, str], dict[str, dict[str, bool]]] = {}
    for row in rows_about(connection, PRIVILEGES, tenant):
        grantees = held.setdefault((row.label, row.prefix, row.target), {})
        if row.privilege_type:
            grantees.setdefault(row.grantee, {})[row.privilege_type] = row.is_grantable
    excess: list[Drift] = []
    for (label, prefix, target), grantees in held.items():
        user, owner = RIGHTS[label]
        for account, wanted in (
            (tenant.user, user),
            (tenant.owner, owner),
            ("", NOTHING),
        ):
            found = grantees.get(account, {})
            missing = wanted - found.keys()
            if missing:
                yield _missing(missing, prefix, target, account)
            excess += _excess(wanted, found, prefix, target, account)
    yield from excess


def _missing(privileges: Collection[str], prefix: str, target: str, account: str) -> Drift:
    names = ", ".join(sorted(privileges))
    return Drift(
        f"{account} lacks {names} on {_place(prefix, target)}",
        f"{prefix}GRANT {names} ON {target} TO {quote_name(account)}",
    )


def _excess(
    wanted: Collection[str], found: Mapping[str, bool], prefix: str, target: str, account: str
) -> Iterator[Drift]:
    grantee = quote_name(account) if account else "PUBLIC"
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


def compare_elsewhere(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield what the two accounts may do outside the schema, and which roles they belong to."""
    for row in rows_about(connection, ELSEWHERE, tenant):
        if row.deptype == "a":
            account = quote_name(row.rolname)
            problem = f"{row.rolname} has privileges on {row.type} {row.identity}"
            if row.type == "default acl":
                # The server writes its identity as "for role x in schema y on tables".
                whose, _, what = row.identity.rpartition(" on ")
                revoke = f"ALTER DEFAULT PRIVILEGES {whose} REVOKE ALL ON {what} FROM {account}"
            else:
                kind = KINDS.get(row.type, row.type.upper())
                revoke = f"REVOKE ALL ON {kind} {row.identity} FROM {account}"
            yield Drift(problem, revoke)
    for member, role in rows_about(connection, MEMBERSHIPS, tenant):
        problem = f"{member} is a member of {role}"
        yield Drift(problem, f"REVOKE {quote_name(role)} FROM {quote_name(member)}")


def compare_search_paths(connection: Connection, tenant: Tenant) -> Iterator[Drift]:
    """Yield which account does not look into the schema for a name without one."""
    known = {row[0] for row in rows_about(connection, SEARCH_PATHS, tenant)}
    [[database]] = rows_about(connection, "SELECT quote_ident(current_database())", tenant)
    for account in (tenant.owner, tenant.user):
        if account not in known:
            yield Drift(
                f"the search_path of {account} is not {tenant.name}",
                f"ALTER ROLE {quote_name(account)} IN DATABASE {database} "
                f"SET search_path = {quote_name(tenant.name)}",
            )
