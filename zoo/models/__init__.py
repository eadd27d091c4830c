"""The networks, one family per file."""

from typing import TYPE_CHECKING

from zoo import lazy

if not TYPE_CHECKING:  # a checker that saw it would take every name for one of a module
    __getattr__, __dir__ = lazy.attach(__name__, {})
