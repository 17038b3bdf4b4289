"""psqa's commands about migrations; ``provisioning`` calls them by name."""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alembic import command
from alembic.script.revision import RevisionError
from alembic.util import CommandError

from ..exceptions import MigrationError
from ..provisioning import Finding, UsageError, find_metadatas, print_wrapped
from .drift import migration_findings
from .migrate import CURRENT, FAILED, NOT_THERE, Order, Outcome, Target, look_at, reason_of
from .processes import Workers, most_jobs
from .report import Reporter, is_bad, print_table, sentence, write_json
from .scripts import GIVEN
from .standing import Standing
from .waits import Patience

OK, DIFFERENT = 0, 1
HALF_WAY, BEHIND = "half-way", "behind"


def revision(arguments: Namespace) -> int:
    """Write a new revision; with --autogenerate, what the models have and the database has not."""
    target = Target(arguments.ini, _order(arguments))
    settings = target.provisioning.settings
    target.scripts.versions.mkdir(parents=True, exist_ok=True)
    with target.provisioning, target.provisioning.as_application() as engine:
        target.scripts.config.attributes[GIVEN] = target.given(
            connectable=engine, metadatas=lambda: find_metadatas((), settings, target.where)
        )
        if arguments.autogenerate and target.standing() is None:
            msg = f"{target.name} is not there, and autogenerate compares it: run psqa create."
            raise MigrationError(msg)
        try:
            made = command.revision(
                target.scripts.config,
                arguments.message,
                autogenerate=arguments.autogenerate,
                rev_id=arguments.rev_id,
            )
        except CommandError as error:
            raise MigrationError(str(error)) from None
    print_wrapped(f"Wrote {getattr(made, 'path', made)}", indent=4)
    return OK


def upgrade(arguments: Namespace) -> int:
    """Run the revisions that each database lacks."""
    return _move(arguments, _order(arguments, "upgrade", arguments.to or "heads"))


def downgrade(arguments: Namespace) -> int:
    """Undo revisions."""
    return _move(arguments, _order(arguments, "downgrade", arguments.to))


def migrations(arguments: Namespace) -> int:
    """Print where each database stands."""
    outcomes = [outcome for _, outcome in _survey(_inis(arguments), _order(arguments))]
    if arguments.json:
        print(json.dumps([each.as_json() for each in outcomes], indent=2))  # noqa: T201 - a command prints
    else:
        print_table(outcomes)
        for each in outcomes:
            if each.error:
                print_wrapped(f"{each.database}: {each.error}", indent=4)
    return OK if {each.state for each in outcomes} <= {CURRENT, NOT_THERE} else DIFFERENT


def findings(ini: str, bind: str | None) -> list[Finding]:
    """Return what ``psqa check`` tells about the migrations of *ini*."""
    target = Target(ini, Order(bind=bind))
    with target.provisioning:
        return list(migration_findings(target))


def _order(arguments: Namespace, direction: str = "upgrade", to: str = "heads") -> Order:
    given = vars(arguments)
    patience = Patience(
        given.get("lock_timeout", Patience().seconds), given.get("retries", Patience().retries)
    )
    return Order(
        direction,
        to,
        admin_url=given.get("admin_url"),
        owner_password=given.get("owner_password"),
        bind=arguments.bind,
        wait=given.get("wait", Order().wait),
        patience=patience,
        online=given.get("online", False),
        on_galera=given.get("on_galera", False),
        repaired=given.get("repaired"),
        sql=given.get("sql"),
    )


def _inis(arguments: Namespace) -> list[str]:
    """Return the ini files of the command line, and those in the file of --databases."""
    found = list(arguments.ini)
    if arguments.databases:
        path = Path(arguments.databases)
        try:
            lines = path.read_text().splitlines()
        except OSError as error:
            msg = f"--databases {path}: {error.strerror}."
            raise UsageError(msg) from None
        named = (line.strip() for line in lines)
        found += [str(path.parent / name) for name in named if name and not name.startswith("#")]
    if not found:
        raise UsageError("Name an ini file, or a file with a list of them in --databases.")
    return list(dict.fromkeys(found))


def _survey(inis: Iterable[str], order: Order) -> Iterator[tuple[str, Outcome]]:
    """Yield each of *inis* with an outcome that says where its database stands: one query each."""
    # Many databases share a folder of revisions, which is read once.
    heads: dict[Path, tuple[str, ...]] = {}
    for ini in inis:
        outcome = Outcome(ini, ini, order.bind or "default")
        try:
            target = Target(ini, order)
            outcome.database = target.name
            with target.provisioning:
                if target.scripts.versions not in heads:
                    heads[target.scripts.versions] = target.scripts.heads()
                _look(target, heads[target.scripts.versions], outcome)
        except Exception as error:  # noqa: BLE001 - of one database; the others are looked at
            outcome.error = reason_of(error)
        yield ini, outcome


def _look(target: Target, heads: Sequence[str], outcome: Outcome) -> None:
    standing = look_at(target, outcome)
    if standing is None:
        return
    if standing.mark:
        outcome.state, outcome.statements = HALF_WAY, target.statements()
    elif standing.is_at(heads):
        outcome.state = CURRENT
    else:
        outcome.state, outcome.revisions = BEHIND, _pending(target, standing)


def _pending(target: Target, standing: Standing) -> list[str]:
    """Return the revisions that the database lacks, in their order."""
    try:
        found = target.scripts.directory.iterate_revisions(
            "heads", standing.revisions, implicit_base=True
        )
        return [script.revision for script in reversed(list(found))]
    except (CommandError, RevisionError) as error:
        msg = f"the database stands at {standing}, which is not among the revisions ({error})"
        raise MigrationError(msg) from None


def _move(arguments: Namespace, order: Order) -> int:
    """Migrate what is not where it should be, and report."""
    settled, waiting = [], []
    for ini, outcome in _survey(_inis(arguments), order):
        is_settled = outcome.state == NOT_THERE or (outcome.state == FAILED and outcome.error)
        if is_settled or (outcome.state == CURRENT and order.to == "heads" and not order.repaired):
            settled.append(outcome)
        else:
            waiting.append((ini, outcome))
    if arguments.dry_run:
        return _print_plan(settled, [outcome for _, outcome in waiting], order)
    if order.sql:
        Path(order.sql).mkdir(parents=True, exist_ok=True)
    outcomes = [*settled, *_run([ini for ini, _ in waiting], order, most_jobs(arguments.jobs))]
    print_table(outcomes)
    for each in outcomes:
        if each.error:
            # Its lines name the statements of a revision.
            print(f"\n{each.database}: {each.error}", flush=True)  # noqa: T201 - a command prints
    if arguments.report:
        write_json(Path(arguments.report), outcomes)
    return DIFFERENT if any(map(is_bad, outcomes)) else OK


def _run(inis: Sequence[str], order: Order, jobs: int) -> list[Outcome]:
    outcomes = []
    with Reporter(len(inis)) as reporter:
        for outcome in Workers(jobs).run(inis, order):
            reporter.show(outcome)
            outcomes.append(outcome)
    return outcomes


def _print_plan(settled: Sequence[Outcome], waiting: Sequence[Outcome], order: Order) -> int:
    for each in settled:
        print_wrapped(sentence(each), indent=4)
    for each in waiting:
        way = f"{each.before} -> {order.to}"
        revisions = f" ({', '.join(each.revisions)})" if each.revisions else ""
        print_wrapped(f"{each.database}: {way}{revisions};", indent=4)
    return DIFFERENT if waiting or any(map(is_bad, settled)) else OK
