"""The application's own tests have fixtures of their own: tests/test_cookiecutter.py runs them."""

collect_ignore_glob = ["*"]
