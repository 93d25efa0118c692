import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import learnmech.data


def test_import_is_cheap():
    code = (
        "import sys, learnmech.data\n"
        "assert not {'torch', 'numpy', 'sklearn', 'pooch'} & set(sys.modules), 'import learnmech.data'\n"
        "from learnmech.data import load\n"
        "assert not {'sklearn', 'pooch'} & set(sys.modules), 'load'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_hides_a_public_function():
    modules = [module.name for module in pkgutil.iter_modules(learnmech.data.__path__)]
    for module in modules:
        importlib.import_module(f"learnmech.data.{module}")
    assert not set(modules) & set(learnmech.data.__all__)
    for name in learnmech.data.__all__:
        assert not isinstance(getattr(learnmech.data, name), types.ModuleType)
    assert dir(learnmech.data) == sorted(learnmech.data.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'imagenet'"):
        learnmech.data.imagenet  # noqa: B018
