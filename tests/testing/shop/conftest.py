"""The application's own tests have fixtures of their own: tests/testing/test_shop.py runs them."""

collect_ignore_glob = ["*"]
