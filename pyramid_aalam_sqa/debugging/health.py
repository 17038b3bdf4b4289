"""Tells a load balancer or an orchestrator whether the databases can be used.

The answer comes from the execution policy, above everything that a request passes: it takes no
transaction, and no tween, veto, retry or recording is involved. Each database is asked in a thread
of its own, because a driver that waits for a silent server cannot be interrupted.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from time import monotonic
from typing import Any

from pyramid.interfaces import IExecutionPolicy
from pyramid.response import Response
from pyramid.router import default_execution_policy
from sqlalchemy.engine import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ..applications import Sqa, get_sqa, pool_numbers
from ..backends import backend_of
from ..engines import error_name, has_hosts, replace_connections
from .tap import quietly_on

log = logging.getLogger(__name__)

# After the policy of the recording.
OUTERMOST = 1002
OK, DOWN, SILENT, READ_ONLY, FULL = "ok", "down", "silent", "read-only", "full"
BEHIND = "behind"
# The bind key of the default database.
DEFAULT = "default"

Policy = Callable[[dict[str, Any], Any], Any]
HeadCheck = Callable[[Any], bool]


def add_sqa_health(
    config: Any,
    path: str = "/healthz",
    live: str = "/livez",
    *,
    seconds: float = 0.8,
    migrations: bool | Collection[str] = False,
) -> None:
    """Answer at *path* whether the databases can be used, and at *live* that the process lives.

    ``config.add_sqa_health()``. Readiness, at *path*, is 200 when each database has answered
    within *seconds* and takes writes, else 503. Its JSON has a word for each bind key: ``ok``,
    ``down`` (no connection, or an error), ``silent`` (no answer in time), ``read-only``,
    ``full`` (all connections of the pool are in use) or ``behind``. With *migrations* a database
    has to be at its last revision, else it is ``behind``: the default database, or those whose
    bind keys are given. Their revisions are where ``sqa.migrations`` says. It is asked with the
    application's own engine and account; addresses and errors are only in the log. Liveness, at
    *live*, is 200 and asks no database: a process must not be restarted because its database is
    down.
    """
    discriminator = ("pyramid_aalam_sqa", "health", path)
    keys = (DEFAULT,) if migrations is True else tuple(migrations or ())
    arguments = (config, path, live, seconds, keys)
    config.action(discriminator, _wrap_policy, arguments, order=OUTERMOST)


def _wrap_policy(
    config: Any, path: str, live: str, seconds: float, migrated: Collection[str]
) -> None:
    registry = config.registry
    policy = registry.queryUtility(IExecutionPolicy, default=default_execution_policy)
    checks = {key: _head_check(registry.settings, key) for key in migrated}
    health = Health(get_sqa(config), seconds, checks)

    def execution_policy(environ: dict[str, Any], router: Any) -> Any:
        asked = environ.get("PATH_INFO")
        if asked == path:
            return health.response()
        if asked == live:
            return _response({"status": OK})
        return policy(environ, router)

    registry.registerUtility(execution_policy, IExecutionPolicy)


def _head_check(settings: Mapping[str, Any], key: str) -> HeadCheck:
    """Return what tells whether the database *key* is at its last revision."""
    from ..migrations import Heads  # noqa: PLC0415 - Alembic is an extra

    return Heads(settings, key).is_at_head


def _response(content: dict[str, Any], status: int = 200) -> Response:
    response = Response(json=content, status=status)
    response.cache_control = "no-store"
    return response


class Health:
    """Asks the databases of one application; questions at the same time share one answer."""

    def __init__(self, sqa: Sqa, seconds: float, checks: Mapping[str, HeadCheck]) -> None:
        self._sqa = sqa
        self._seconds = seconds
        self._checks = checks
        self._lock = threading.Lock()
        self._running: dict[str, Question] = {}
        # The last answer of each database, so that the log has a line when it changes.
        self._said: dict[str, str] = {}

    def response(self) -> Response:
        """Return 200 or 503, and a word for each database."""
        found = self.ask(self._sqa.engines)
        usable = all(state == OK for state in found.values())
        content: dict[str, Any] = {"status": OK if usable else "unavailable", "databases": found}
        readers = self._readers()
        if readers:
            content["readers"] = readers
        response = _response(content, 200 if usable else 503)
        if not usable:
            seconds = self._sqa.settings.sqa_options["retry_after"]
            response.headers["Retry-After"] = str(seconds)
        return response

    def _readers(self) -> dict[str, str]:
        """Return the state of each replica. Without one, requests read where they write."""
        reading = self._sqa.reading
        replicas = [each for engine in reading.replicated for each in reading.replicas_of(engine)]
        found = self.ask({each.name: each.engine for each in replicas})
        return found | {each.name: BEHIND for each in replicas if each.lacks}

    def ask(self, engines: Mapping[str, Engine]) -> dict[str, str]:
        """Return the state of each of *engines* by its name, within the seconds of this Health."""
        deadline = monotonic() + self._seconds
        asked = {key: self._question(key, engine) for key, engine in engines.items()}
        found = {key: question.answer(deadline) for key, question in asked.items()}
        for key, state in found.items():
            if self._said.get(key, OK) != state:
                log.warning("The database %s is %s: %s", key, state, asked[key].reason)
            self._said[key] = state
        return found

    def _question(self, key: str, engine: Engine) -> "Question":
        """Return the question that is being asked, or a new one.

        A database that is silent for a minute has one thread waiting for it, not one for each call.
        """
        with self._lock:
            running = self._running.get(key)
            if running is None or running.done.is_set():
                running = self._running[key] = Question(engine, self._checks.get(key))
                threading.Thread(target=running.ask, name="sqa-health", daemon=True).start()
            return running


class Question:
    """One question to one database."""

    def __init__(self, engine: Engine, is_at_head: HeadCheck | None) -> None:
        self._engine = engine
        self._is_at_head = is_at_head
        self.done = threading.Event()
        self.state = DOWN
        self.reason = "no answer in time"
        size, in_use, _idle = pool_numbers(engine)
        self._was_full = size is not None and in_use >= size
        self._has_connection = False

    def ask(self) -> None:
        """Ask, in a thread of its own, and set ``state``."""
        try:
            quietly_on(self._engine, self._ask)
        except PoolTimeoutError:
            self.state, self.reason = FULL, "all connections are in use"
        except Exception as error:  # noqa: BLE001 - whatever it is, the database is not usable
            self.state, self.reason = DOWN, error_name(error)
        finally:
            self.done.set()

    def _ask(self) -> None:
        if self._refuses() and has_hosts(self._engine):
            # The pool leads to a server that was the writer before. Another host may be it now.
            replace_connections(self._engine.pool)
            self._refuses()

    def _refuses(self) -> bool:
        """Set ``state`` by what the database says; return whether it takes no writes."""
        connection = self._engine.raw_connection()
        self._has_connection = True
        try:
            driver = connection.dbapi_connection
            backend = backend_of(self._engine)
            # Of a replica nothing else is expected.
            refuses = backend.refuses_writes(driver) and not backend.reading
            behind = self._is_at_head is not None and not self._is_at_head(driver)
        except BaseException as error:
            # The driver was asked directly, so that SQLAlchemy does not know that it is broken.
            connection.invalidate(error)
            raise
        finally:
            connection.close()
        self.state, self.reason = (OK, "")
        if refuses:
            self.state, self.reason = READ_ONLY, "it takes no writes"
        elif behind:
            self.state, self.reason = BEHIND, "it is not at its last revision"
        return refuses

    def answer(self, deadline: float) -> str:
        """Return the state, or what is known of it at *deadline*."""
        if self.done.wait(max(0.0, deadline - monotonic())):
            return self.state
        return FULL if self._was_full and not self._has_connection else SILENT
