"""What importing the package imports: nothing that only some applications need."""

import subprocess
import sys

# Each takes longer to import than most of the package.
SELDOM_NEEDED = (
    "sqlalchemy.dialects.postgresql",
    "pyramid_aalam_sqa.provisioning",
    "pyramid_aalam_sqa.debugging",
    "pyramid_aalam_sqa.testing",
    "MySQLdb",
)


def test_an_application_does_not_import_what_it_does_not_need():
    """The dialects of other products, psqa, and what watches requests."""
    code = (
        "import sys\n"
        "import pyramid_aalam_sqa\n"
        f"print([name for name in {SELDOM_NEEDED!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
