"""Reading a CSV file of numbers, with or without a row of column names, plain or gzipped."""

import csv
import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from learnmech.errors import DataError, InputError


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns.

    Args:
        values: (rows, columns), float64.
        columns: the column names, or None if the file has none.
    """

    values: npt.NDArray[np.float64]
    columns: tuple[str, ...] | None


def _number(cell: str) -> float | None:
    if "_" in cell:  # float() takes 1_000, a CSV file does not mean that
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _column(position: int, columns: tuple[str, ...] | None) -> str:
    return f"column {position + 1}" + (f" ({columns[position]!r})" if columns else "")


def _parse_row(cells: list[str], line: int, columns: tuple[str, ...] | None, path: Path) -> list[float]:
    row = []
    for position, cell in enumerate(cells):
        value = _number(cell)
        if value is None or not math.isfinite(value):
            got = "an empty cell" if not cell.strip() else repr(cell[:40])
            raise DataError(
                f"{path}, line {line}, {_column(position, columns)}: expected a finite number, got {got}. "
                "Fill or remove such rows; a row of column names must have no numbers in it."
            )
        row.append(value)
    return row


def _parse(stream: IO[str], path: Path, delimiter: str) -> Table:
    reader = csv.reader(stream, delimiter=delimiter)
    columns: tuple[str, ...] | None = None
    width: int | None = None
    rows: list[list[float]] = []
    for cells in reader:
        if not cells:
            continue
        if width is None:
            width = len(cells)
            if width < 2:
                raise DataError(
                    f"{path}: expected at least 2 columns, inputs and target, got 1. Is the delimiter {delimiter!r} right?"
                )
            if all(_number(cell) is None for cell in cells) and any(cell.strip() for cell in cells):
                columns = tuple(cell.strip() for cell in cells)
                continue
        if len(cells) != width:
            raise DataError(
                f"{path}, line {reader.line_num}: expected {width} columns as in the first row, got {len(cells)}. "
                f"Check that the delimiter is {delimiter!r} and that no cell is left out."
            )
        rows.append(_parse_row(cells, reader.line_num, columns, path))
    if not rows:
        raise DataError(f"{path}: expected rows of numbers, got none.")
    return Table(np.array(rows, dtype=np.float64), columns)


def read_table(path: str | Path, delimiter: str = ",") -> Table:
    """Read a CSV file of numbers.

    The first row holds column names if none of its cells is a number. Blank lines are skipped. Gzip is known by its first
    bytes, not by the file's name. Text is UTF-8.

    Args:
        path: the file.
        delimiter: the one character between cells.

    Returns:
        The numbers and the column names.

    Raises:
        InputError: if the delimiter is not one character.
        DataError: if the file is missing or damaged, is no text, has one column only or rows of different lengths, or has a cell that is
            empty or not a finite number; the message names line and column.
    """
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise InputError(f"delimiter: expected one character such as ',' or ';', got {delimiter!r}.")
    path = Path(path)
    try:
        with path.open("rb") as plain:
            zipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            content = gzip.GzipFile(fileobj=plain) if zipped else plain
            with io.TextIOWrapper(content, encoding="utf-8-sig", newline="") as stream:
                return _parse(stream, path, delimiter)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: expected a whole gzip file, got a damaged one ({error}). Fetch it again.") from None
    except OSError as error:
        raise DataError(f"could not read {path}: {error.strerror or error}. Check the path.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected CSV text in UTF-8, got something else ({error}).") from None
