"""Names that a package gives from its modules, each imported when it is asked for (PEP 562).

Who takes one plain module of the package does not wait for the libraries that the others need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late_names(package: str, names: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of `package`.

    Args:
        package: its ``__name__``.
        names: by module of the package, what is taken from it.
    """
    modules = {name: module for module, taken in names.items() for name in taken}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
