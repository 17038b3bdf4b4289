"""Ends with an error if another program listens on a port: python tools/free_port.py 6543."""

import socket
import sys

port = int(sys.argv[1])
try:
    socket.create_server(("localhost", port)).close()
except OSError:
    sys.exit(f"Port {port} is in use. Choose another one: make run PORT={port + 1}")
