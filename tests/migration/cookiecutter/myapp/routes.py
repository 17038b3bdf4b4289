"""Every address of the application."""


def includeme(config):
    """Add the routes; what answers them is found by the scan."""
    config.add_route("home", "/")
    config.add_route("add", "/add/{name}", request_method="POST")
