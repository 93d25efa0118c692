"""The floors of the house: who may import whom, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import learnmech

SOURCE = Path(learnmech.__file__).parent
FLOORS = {
    "cli": 5,
    "cli_parts": 5,
    "cli_reproduce": 5,
    "cli_scan": 5,
    "cli_sweep": 5,
    "experiments": 4,
    "dynamics": 3,
    "leaky": 3,
    "speed": 3,
    "springs": 3,
    "report": 3,
    "monitor": 2,
    "sweep": 2,
    "training": 2,
}  # everything else: 1
THEORIES = {"springs", "speed", "leaky", "dynamics"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("learnmech"):
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "learnmech" else {node.module}
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("learnmech.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_arrows_point_down_only(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # the lazily imported public names
    for module in imports(path):
        other = room(module)
        if other in ("", own, "__version__"):
            continue
        assert FLOORS.get(other, 1) <= FLOORS.get(own, 1), f"{own} imports {module}, which lies above it"
        if own in THEORIES:
            assert other not in THEORIES | {"report"}, f"{own} imports {module}: theories stand side by side"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_unpickles_or_evaluates(path):
    """No pickle (the data reader's is inert and tested there), no eval, and torch.load only with weights_only."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in {"eval", "exec", "pickle.load", "pickle.loads", "joblib.load"}, name
            if name == "torch.load":
                assert any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)


def test_importing_learnmech_imports_nothing_heavy():
    script = (
        "import sys, learnmech; print([m for m in ('torch', 'numpy', 'xarray', 'plotly', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_does_not_import_torch():
    script = (
        "import sys\nfrom learnmech.cli import main\nsys.argv = ['learnmech', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"
    assert "doctor" in done.stdout


def test_every_public_name_is_there():
    for name in learnmech.__all__:
        assert getattr(learnmech, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        learnmech.nonsense  # noqa: B018
