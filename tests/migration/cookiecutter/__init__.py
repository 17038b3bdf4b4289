"""A whole application in the layout of Pyramid's cookiecutter, rebuilt on this package."""
