"""The env.py of an application that has none."""

from pyramid_aalam_sqa.migrations import run

run()
