"""The command `ncut`: arguments -> library -> what is printed and written, and exit codes."""

from ncut.cli.app import app, main

__all__ = ["app", "main"]
