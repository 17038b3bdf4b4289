"""Two applications with the debug toolbar in one process, at /one and /two."""

from pyramid.httpexceptions import HTTPNotFound

from support import toolbar_app


def main(global_config, **settings):
    """Return what serves both; pserve makes it. The second has a database beside the first's."""
    url = settings.pop("sqlalchemy.url")
    apps = {
        name: toolbar_app.main(global_config, **settings, **{"sqlalchemy.url": f"{url}.{name}"})
        for name in ("one", "two")
    }

    def serve(environ, start_response):
        _, name, rest = f"{environ['PATH_INFO']}/".split("/", 2)
        if name not in apps:
            return HTTPNotFound()(environ, start_response)
        environ["SCRIPT_NAME"] += f"/{name}"
        environ["PATH_INFO"] = f"/{rest[:-1]}"
        return apps[name](environ, start_response)

    return serve
