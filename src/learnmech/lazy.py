"""Public names that are imported when they are first used, so that importing a package costs next to nothing."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, objects: Mapping[str, str], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    A module must not bear the name of an object that it holds: importing it would put the module in the object's place.

    Args:
        package: the package's ``__name__``.
        objects: public name to the module of the package that holds it.
        modules: modules and packages inside that are public themselves.

    Returns:
        ``__getattr__`` and ``__dir__``.
    """

    def get(name: str) -> Any:
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        if name in objects:
            return getattr(importlib.import_module(f"{package}.{objects[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted([*objects, *modules])
