"""A request's transaction behaves as any other of the package transaction, used or not.

Each test of the first part runs with the package's own manager too. If one fails there, that
package has changed: look at requests/transactions.py again.
"""

import gc
import logging
import threading
import weakref

import pytest
import transaction
from pyramid.response import Response
from pyramid.security import Allowed
from transaction import Transaction, TransactionManager
from transaction.interfaces import AlreadyInTransaction, DoomedTransaction, NoTransaction
from webtest import TestApp

from pyramid_aalam_sqa.requests import transactions
from pyramid_aalam_sqa.requests.transactions import RequestManager, RequestTransaction
from support.apps import with_view


@pytest.fixture(params=[RequestManager, TransactionManager])
def tm(request):
    """An explicit transaction manager of either kind."""
    return request.param(explicit=True)


class Synchronizer:
    """Notes what it is told."""

    def __init__(self):
        self.told = []

    def newTransaction(self, transaction):  # noqa: N802 - transaction's interface
        self.told.append(("new", transaction))

    def beforeCompletion(self, transaction):  # noqa: N802 - transaction's interface
        self.told.append(("before", transaction))

    def afterCompletion(self, transaction):  # noqa: N802 - transaction's interface
        self.told.append(("after", transaction))


class DataManager:
    """Notes what it has to do."""

    transaction_manager = None

    def __init__(self):
        self.done = []

    def sortKey(self):  # noqa: N802 - transaction's interface
        return "data manager"

    def __getattr__(self, name):
        if name not in {"abort", "tpc_begin", "commit", "tpc_vote", "tpc_finish", "tpc_abort"}:
            raise AttributeError(name)
        return lambda transaction: self.done.append(name)


class Alone(DataManager):
    """As that of a session, which does its steps at once if no other one has joined."""

    fails_in = None
    during = staticmethod(lambda: None)

    def commit_alone(self, transaction):
        self.tpc_begin(transaction)
        self.tpc_vote(transaction)

    def tpc_begin(self, transaction):
        self.step("tpc_begin")

    def tpc_vote(self, transaction):
        self.step("tpc_vote")

    def step(self, name):
        self.done.append(name)
        self.during()
        if name == self.fails_in:
            raise RuntimeError(name)


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_transaction_that_is_not_used_begins_and_ends(tm, end):
    """It is the current one in between."""
    begun = tm.begin()
    assert isinstance(begun, Transaction)
    assert tm.get() is begun
    with pytest.raises(AlreadyInTransaction):
        tm.begin()

    getattr(tm, end)()

    with pytest.raises(NoTransaction):
        tm.get()
    assert tm.begin() is not begun


def test_who_holds_an_unused_transaction_cannot_join_it_after_its_commit(tm):
    """What it would store is never committed."""
    begun = tm.begin()
    tm.commit()

    with pytest.raises(ValueError, match="expected txn status"):
        begun.join(DataManager())


def test_a_data_manager_that_joins_is_committed(tm):
    """So is one that joins after a note and a user were set."""
    begun, joined = tm.begin(), DataManager()
    begun.note("/path")
    begun.user = "somebody"
    begun.join(joined)
    assert (begun.description, begun.user) == ("/path", "somebody")

    tm.commit()

    assert joined.done == ["tpc_begin", "commit", "tpc_vote", "tpc_finish"]


def test_a_data_manager_that_has_joined_alone_is_asked_for_what_it_has_to_do(tm):
    """That of a session does nothing in the other steps."""
    joined, hook = Alone(), []
    begun = tm.begin()
    begun.join(joined)
    joined.during = lambda: begun.addAfterCommitHook(hook.append)
    tm.commit()

    assert [step for step in joined.done if step.startswith("tpc_")][:2] == [
        "tpc_begin",
        "tpc_vote",
    ]
    # The hooks were added in the middle of the commit.
    assert hook == [True, True]
    assert begun.status == "Committed"
    with pytest.raises(NoTransaction):
        tm.get()


def test_two_data_managers_do_each_step_together(tm):
    """One alone could be stored without the other."""
    first, second = Alone(), Alone()
    first.done = second.done
    begun = tm.begin()
    begun.join(first)
    begun.join(second)
    tm.commit()

    steps = ["tpc_begin", "commit", "tpc_vote", "tpc_finish"]
    assert first.done == [step for step in steps for _ in range(2)]


@pytest.mark.parametrize("step", ["tpc_begin", "tpc_vote"])
def test_a_data_manager_that_fails_is_rolled_back_and_its_error_is_raised(tm, step):
    """Hooks and synchronizers are told, and nothing can join the transaction from then on."""
    joined, synchronizer, hook = Alone(), Synchronizer(), []
    joined.fails_in = step
    begun = tm.begin()
    begun.join(joined)
    begun.addAfterCommitHook(hook.append)
    joined.during = lambda: synchronizer.told or tm.registerSynch(synchronizer)

    with pytest.raises(RuntimeError, match=step):
        tm.commit()

    # The second time because of the hook, which might have used it.
    assert joined.done[-3:] == ["abort", "tpc_abort", "abort"]
    assert joined.done.count(step) == 1
    assert synchronizer.told[-1] == ("after", begun)
    assert hook == [False]
    with pytest.raises(
        transaction.interfaces.TransactionFailedError, match=f"RuntimeError: {step}"
    ):
        begun.join(DataManager())
    tm.abort()
    with pytest.raises(NoTransaction):
        tm.get()


def test_an_error_of_a_commit_leaves_nothing_to_be_collected(tm):
    """Its traceback is gone with it, unless the package itself keeps it: older versions do."""
    gc.collect()
    gc.disable()
    try:
        assert _survives(tm) <= _survives(TransactionManager(explicit=True))
    finally:
        gc.enable()


def _survives(tm):
    """Return whether a data manager that has failed in *tm* waits for the garbage collector."""
    joined = Alone()
    joined.fails_in = "tpc_vote"
    gone = weakref.ref(joined)
    tm.begin().join(joined)
    with pytest.raises(RuntimeError):
        tm.commit()
    tm.abort()
    del joined
    return gone() is not None


def test_a_synchronizer_that_comes_in_the_middle_of_a_commit_is_told_of_its_end(tm):
    """A listener of a session may register it."""
    joined, synchronizer = Alone(), Synchronizer()
    begun = tm.begin()
    begun.join(joined)
    joined.during = lambda: synchronizer.told or tm.registerSynch(synchronizer)
    tm.commit()

    assert synchronizer.told == [("new", begun), ("after", begun)]


def test_who_has_asked_for_a_log_of_transactions_gets_it(tm, caplog):
    """Each beginning, and each end."""
    with caplog.at_level(logging.DEBUG, logger="txn"):
        tm.begin().join(DataManager())
        tm.commit()

    told = [record.message.split(" <")[0] for record in caplog.records]
    assert told == ["new transaction", "commit", "commit"]
    assert {record.name[:4] for record in caplog.records} == {"txn."}


def test_an_error_in_a_hook_is_in_the_log_of_the_thread(tm, caplog):
    """As the package writes it, with the number of the thread in the name."""
    tm.begin().addAfterCommitHook(lambda _: 1 / 0)
    tm.commit()

    [record] = caplog.records
    assert record.name == f"txn.{threading.get_ident()}"


def test_a_data_manager_that_joins_is_rolled_back(tm):
    """By the manager, and by the transaction itself."""
    for end in (tm, None):
        joined = DataManager()
        begun = tm.begin()
        begun.join(joined)
        (end or begun).abort()
        assert joined.done == ["abort"]


def test_a_data_manager_that_joins_during_a_rollback_is_rolled_back_too(tm):
    """The rollback of the first one may use something that joins."""
    second = DataManager()

    class First(Alone):
        def abort(self, transaction):
            self.step("abort")
            if second not in transaction._resources:  # noqa: SLF001 - it has no public name
                transaction.join(second)

    first = First()
    tm.begin().join(first)
    tm.abort()

    assert second.done == ["abort"]
    tm.begin()


def test_an_extension_that_is_set_before_the_first_use_stays(tm):
    """As old storages set it."""
    begun = tm.begin()
    begun._extension = {"own": 1}  # noqa: SLF001 - those did not have the public name
    begun.addAfterCommitHook(print)

    assert begun.extension == {"own": 1}


def test_a_doomed_transaction_is_not_committed(tm):
    """It can be doomed before anybody has used it."""
    tm.begin()
    assert not tm.isDoomed()
    tm.doom()
    assert tm.isDoomed()
    with pytest.raises(DoomedTransaction):
        tm.commit()
    tm.abort()


@pytest.mark.parametrize("end", ["commit", "abort"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_synchronizer_is_told_of_each_transaction(tm, end, when):
    """Whether it was registered before the beginning or after it."""
    synchronizer = Synchronizer()
    if when == "before":
        tm.registerSynch(synchronizer)
    begun = tm.begin()
    if when == "after":
        tm.registerSynch(synchronizer)
    getattr(tm, end)()

    assert synchronizer.told == [("new", begun), ("before", begun), ("after", begun)]


def test_hooks_are_called_with_what_became_of_it(tm):
    """A hook is a use."""
    called = []
    tm.begin().addAfterCommitHook(called.append)
    tm.commit()
    tm.begin().addAfterAbortHook(lambda: called.append("aborted"))
    tm.abort()

    assert called == [True, "aborted"]


def test_a_savepoint_can_be_made_first(tm):
    """It is a use as well."""
    joined = DataManager()
    tm.begin()
    savepoint = tm.savepoint()
    tm.get().join(joined)
    savepoint.rollback()
    tm.commit()

    assert joined.done == ["abort"]


def test_what_a_transaction_does_not_have_is_missing(tm):
    """Whether it was used before or not."""
    begun = tm.begin()
    for _ in range(2):
        assert not hasattr(begun, "no_such_attribute")
        begun.addBeforeCommitHook(print)


def test_the_package_transaction_sets_what_is_set_here():
    """If this fails, it has changed, and a request has the package's own manager until then."""
    assert transactions.IS_KNOWN


# The applications. ---------------------------------------------------------------------------


def look(request):
    return Response(f"{type(request.tm).__name__} {type(request.tm.get()).__name__}")


def test_an_application_has_this_manager(serve):
    """It is the default of tm.manager_hook."""
    told = TestApp(serve("sqlite://", with_view(look))).get("/").text

    assert told == f"{RequestManager.__name__} {RequestTransaction.__name__}"


def test_an_application_has_the_packages_own_manager_when_that_has_changed(serve, monkeypatch):
    """Another version may need attributes that are not set here."""

    class Changed(Transaction):
        def __init__(self, *args):
            super().__init__(*args)
            self.new_attribute = None

    with monkeypatch.context() as patch:
        patch.setattr(transactions, "Transaction", Changed)
        monkeypatch.setattr(transactions, "IS_KNOWN", transactions._has_known_attributes())  # noqa: SLF001
    told = TestApp(serve("sqlite://", with_view(look))).get("/").text

    assert told == "TransactionManager Transaction"


@pytest.mark.parametrize(
    "setting",
    [{"sqa.shortcuts": "false"}, {"tm.manager_hook": "pyramid_tm.explicit_manager"}],
    ids=["shortcuts", "hook"],
)
def test_an_application_may_have_another_one(serve, setting):
    """Without shortcuts, and where its own hook makes it."""
    told = TestApp(serve("sqlite://", with_view(look), **setting)).get("/").text

    assert told == "TransactionManager Transaction"


def test_the_user_is_noted_where_the_application_asks_for_it(serve):
    """tm.annotate_user, which is pyramid_tm's."""

    class Policy:
        def authenticated_userid(self, request):
            return "somebody"

        def permits(self, request, context, permission):
            return Allowed("")

    def view(request):
        transaction = request.tm.get()
        return Response(f"{transaction.user} {transaction.description}")

    def setup(config):
        config.set_security_policy(Policy())

    app = serve("sqlite://", setup, with_view(view), **{"tm.annotate_user": "true"})

    assert TestApp(app).get("/").text == "somebody /"
