"""See what is in a picture with CLIP: a page, an API, metrics and a command line."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("clip-app")
