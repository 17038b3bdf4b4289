"""Without a setting that asks for it, nothing of the room is there: no module and no listener."""

import subprocess
import sys

from support.pages import ROOT

# In a process of its own: this one has the room, and its listener for lazy loads.
PROGRAM = """
import gc
import sys
sys.path.insert(0, "benchmarks")
import recording_cost as script

calls = {}
for name in ("without", "off"):
    app = script.application(name)
    script.ask(app, 5)
    # The collector calls finalizers when it likes.
    gc.collect()
    gc.disable()
    calls[name] = [script.calls(app, number) for number in (0, 5)]
assert calls["off"] == calls["without"], calls
# A module that is not imported has registered no listener and has wrapped nothing.
found = [name for name in sys.modules if name.startswith("pyramid_aalam_sqa.debugging")]
assert not found, found
print("nothing")
"""


def test_off_it_is_not_imported_has_no_listener_and_costs_no_call():
    """A request makes exactly the calls that it makes with the hooks taken out of the include."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert (done.stderr, done.stdout) == ("", "nothing\n")
