"""Regression data sets from CSV files."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from learnmech.data.checks import require_integer
from learnmech.data.csv_table import Table, read_table
from learnmech.data.dataset import Dataset
from learnmech.errors import DataError, InputError


def _target_column(table: Table, target: str | int, path: Path) -> int:
    width: int = table.values.shape[1]
    if isinstance(target, int):
        require_integer("target", target, -width, width - 1, advice=f"{path.name} has {width} columns.")
        return target % width
    if table.columns is None:
        raise InputError(f"target: expected a column number because {path} has no column names, got {target!r}.")
    matches = [position for position, name in enumerate(table.columns) if name == target]
    if len(matches) != 1:
        raise InputError(
            f"target: expected a name that stands once among the columns {', '.join(table.columns)} of {path}, got "
            f"{target!r}, which stands {len(matches)} times. Name another column or give its number."
        )
    return matches[0]


def _scale(
    train: npt.NDArray[np.float64], test: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    constant = train.min(axis=0) == train.max(axis=0)  # a computed deviation of equal numbers need not be exactly 0
    mean = np.where(constant, train[0], train.mean(axis=0))
    deviation = np.where(constant, 1.0, train.std(axis=0))
    return (train - mean) / deviation, (test - mean) / deviation


def _tensor(values: npt.NDArray[np.float64], path: Path) -> Tensor:
    result = torch.from_numpy(values).float()
    if not bool(torch.isfinite(result).all()):
        raise DataError(f"{path}: expected numbers that fit in float32, got larger ones. Rescale them in the file.")
    return result


def load_csv(
    path: str | Path,
    target: str | int = -1,
    *,
    delimiter: str = ",",
    test_fraction: float = 0.2,
    split_seed: int = 1,
    standardize: bool = True,
) -> Dataset:
    r"""Load a regression data set from a CSV file of numbers, plain or gzipped, with or without column names.

    Rows are split by ``randperm(rows)`` from a generator seeded with ``split_seed``: the first rows of that order train,
    the last floor(test_fraction rows) test. Each column z becomes (z - mean) / std, with mean and population standard
    deviation of the training rows only; so the test rows have a mean and a variance near 0 and 1, not exactly. A feature
    that is constant in training is only centred. A mean squared error on the standardised target is the share of variance
    left unexplained.

    Args:
        path: the file; it may end in ``.gz``.
        target: the column to predict, by name or number (-1 is the last); all others are inputs.
        delimiter: the one character between cells.
        test_fraction: the share of rows kept for testing, at least 0 and below 1.
        split_seed: the seed of the split.
        standardize: whether to standardise inputs and target.

    Returns:
        Inputs (samples, features) and targets (samples, 1), float32, ``classes`` None.

    Raises:
        InputError: if the target is no column of the file, or another argument does not fit.
        DataError: if the file is missing or damaged, has ragged rows, a cell that is empty or no finite number, fewer
            than 2 columns or 2 training rows, or a target that is constant in the training rows.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "line.csv"
        >>> _ = file.write_text("x,y\n" + "".join(f"{x},{2 * x}\n" for x in range(10)))
        >>> data = load_csv(file, "y")
        >>> data.train_inputs.shape, data.test_targets.shape, bool(data.train_inputs.allclose(data.train_targets))
        (torch.Size([8, 1]), torch.Size([2, 1]), True)
    """
    path = Path(path).expanduser()
    require_integer("split_seed", split_seed, 0)
    if not 0 <= test_fraction < 1:
        raise InputError(f"test_fraction: expected a share of at least 0 and below 1, got {test_fraction}.")
    table = read_table(path, delimiter)
    rows, width = table.values.shape
    position = _target_column(table, target, path)
    training = rows - int(test_fraction * rows)
    if training < 2:
        raise DataError(f"{path}: expected at least 2 training rows, got {training} of {rows}. Lower test_fraction.")

    order = torch.randperm(rows, generator=torch.Generator().manual_seed(split_seed)).numpy()
    train, test = table.values[order[:training]], table.values[order[training:]]
    if train[:, position].min() == train[:, position].max():
        label = repr(table.columns[position]) if table.columns else str(position + 1)
        raise DataError(
            f"{path}, column {label}: expected a target that varies, got the same number in all {training} training "
            "rows. Name another column as target."
        )
    if standardize:
        train, test = _scale(train, test)
    inputs = [column for column in range(width) if column != position]
    return Dataset(
        name=path.name,
        train_inputs=_tensor(train[:, inputs], path),
        train_targets=_tensor(train[:, [position]], path),
        test_inputs=_tensor(test[:, inputs], path),
        test_targets=_tensor(test[:, [position]], path),
        classes=None,
        source=f"CSV file {path.name}, {rows} rows, split seed {split_seed}"
        + (", standardised by training rows" if standardize else ""),
    )
