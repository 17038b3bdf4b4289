"""``python -m pyramid_aalam_sqa.demo`` serves the demo on http://localhost:6543.

It works from an installed wheel and needs no ini file.
"""

import argparse
import logging
import socket
import sys

from . import main as make_app

PORT = 6543
EXTRA = 'The demo needs two more packages: pip install "pyramid_aalam_sqa[demo]"'
IN_USE = "Port {} is in use. Choose another one: --port {}"


def main(arguments: list[str] | None = None) -> None:
    """Serve the demo until Ctrl-C. Ends the process with one line if that is not possible."""
    parser = argparse.ArgumentParser(prog="python -m pyramid_aalam_sqa.demo", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    parser.add_argument(
        "--url",
        default="sqlite:///guestbook.sqlite",
        help="the database; default: %(default)s, a file in this folder",
    )
    parser.add_argument(
        "--ledger-url",
        default="sqlite:///ledger.sqlite",
        help="the second database; default: %(default)s",
    )
    options = parser.parse_args(arguments)
    try:
        import pyramid_jinja2  # noqa: F401, PLC0415 - the extra may be missing, and then says so
        from waitress import serve  # noqa: PLC0415 - as above
    except ImportError:
        sys.exit(EXTRA)
    listener = _listen(options.port)
    logging.basicConfig(level=logging.INFO, format="%(levelname)-7s [%(name)s] %(message)s")
    app = make_app(
        {},
        **{
            "sqlalchemy.url": options.url,
            "sqlalchemy.binds.ledger.url": options.ledger_url,
            "sqa.record": "true",
        },
    )
    address = f"http://localhost:{options.port}"
    print(f"{address} shows the demo. Ctrl-C ends it.", flush=True)  # noqa: T201 - a command
    serve(app, sockets=[listener], _quiet=True)


def _listen(port: int) -> socket.socket:
    """Return a socket that listens on *port* of this machine alone."""
    try:
        return socket.create_server(("localhost", port))
    except OSError:
        sys.exit(IN_USE.format(port, port + 1))


if __name__ == "__main__":
    main()
