"""How an experiment is named, so that workers and the command line can find it again."""

import dataclasses
import hashlib
import importlib
import re
import types
from collections.abc import Callable
from typing import Any, cast

from learnmech.errors import InputError
from learnmech.fingerprint import fingerprint_config, fingerprint_data

Experiment = Callable[..., Any]

_REFERENCE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclasses.dataclass(frozen=True)
class Reference:
    """The name of an experiment.

    Attributes:
        text: ``module:qualname``; behind it ``#digits`` of the code if it cannot be imported under that name.
        obstacle: why it cannot be imported elsewhere; empty if it can.
    """

    text: str
    obstacle: str = ""

    @property
    def base(self) -> str:
        """The text without the digits of the code."""
        return self.text.partition("#")[0]


def refer(experiment: Any) -> tuple[Experiment, Reference]:
    """Name an experiment.

    Args:
        experiment: ``"module:qualname"``, a function, or an instance of a dataclass that can be called.

    Returns:
        The callable and its name.

    Raises:
        InputError: if it cannot be called, found or told apart from others.
    """
    if isinstance(experiment, str):
        return resolve(experiment), Reference(experiment)
    if not callable(experiment):
        raise InputError(
            "experiment must be a function of one configuration, an instance that can be called, or the name "
            f"'module:qualname' of one, got {experiment!r}."
        )
    if isinstance(experiment, types.FunctionType):
        return experiment, _refer_by_name(experiment, experiment.__module__, experiment.__qualname__)
    if not dataclasses.is_dataclass(experiment) or isinstance(experiment, type):
        raise InputError(
            "experiment must be a function or an instance of a dataclass with __call__, so that it has a name that stays "
            f"the same; got a {type(experiment).__name__}. Put settings into fixed= instead of binding them."
        )
    return cast(Experiment, experiment), _refer_to_instance(experiment)


def _refer_by_name(experiment: types.FunctionType, module: str, qualname: str) -> Reference:
    text = f"{module}:{qualname}"
    if module == "__main__":
        obstacle = "it is defined in the script that was run; move it to a module of its own"
    elif "<" in qualname:
        obstacle = "it is a lambda or defined inside a function; define it at the top level of a module"
    else:
        try:
            if resolve(text) is experiment:
                return Reference(text)
            obstacle = f"another object stands under the name {text!r}"
        except InputError as error:
            obstacle = str(error)
    return Reference(f"{text}#{_digits_of_code(experiment)}", obstacle)


def _refer_to_instance(experiment: Any) -> Reference:
    kind = type(experiment)
    given = getattr(experiment, "import_name", None)
    if isinstance(given, str):
        if resolve(given) is not experiment:
            raise InputError(f"import_name is {given!r}, but another object stands there.")
        return Reference(given)
    module = importlib.import_module(kind.__module__)
    names = sorted(name for name, value in vars(module).items() if value is experiment)
    if names and kind.__module__ != "__main__":
        return Reference(f"{kind.__module__}:{names[0]}")
    fields = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(experiment)}
    return Reference(
        f"{kind.__module__}:{kind.__qualname__}#{fingerprint_config(fields)[:8]}",
        f"no name at the top level of {kind.__module__} is bound to it; bind one, give the instance an attribute "
        "import_name = 'module:name', or name it to Sweep as 'module:name'",
    )


def _digits_of_code(function: types.FunctionType) -> str:
    digest = hashlib.sha256()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        digest.update(code.co_code + repr((code.co_names, code.co_varnames)).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                codes.append(constant)
            else:
                digest.update(
                    repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode()
                )
    for cell in function.__closure__ or ():
        try:
            digest.update(fingerprint_data(cell.cell_contents).encode())
        except ValueError:  # not yet bound
            continue
    digest.update(repr((function.__defaults__, function.__kwdefaults__)).encode())
    return digest.hexdigest()[:8]


def resolve(text: str) -> Experiment:
    """Import the experiment that a name stands for.

    Args:
        text: ``module:qualname``.

    Returns:
        The callable.

    Raises:
        InputError: if there is no such module or name, or it cannot be called.
    """
    if not _REFERENCE.fullmatch(text):
        raise InputError(f"expected the name of an experiment as 'module:qualname', got {text!r}.")
    module_name, _, qualname = text.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"the experiment {text!r} could not be imported here: {error}. Workers and the command line need its module "
            "on their path: install it, or set PYTHONPATH to its folder."
        ) from error
    if not callable(found):
        raise InputError(f"{text!r} must be callable, but is a {type(found).__name__}.")
    experiment: Experiment = found
    return experiment
