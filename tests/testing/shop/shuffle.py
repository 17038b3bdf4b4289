"""Runs the tests in random order: ``-p shuffle``."""

import os
import random


def pytest_report_header(config):
    return f"order of the tests: {os.environ.get('SHUFFLE')}"


def pytest_collection_modifyitems(items):
    """All workers of a run must have the same order."""
    random.Random(os.environ.get("SHUFFLE", "")).shuffle(items)
