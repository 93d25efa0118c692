"""Where numbers go while training runs: any callable ``(dict, step)``; CSV and JSON lines are built in."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from learnmech.errors import InputError, StorageError

Sink = Callable[[Mapping[str, float], int], object]


class JsonLinesSink:
    """Append one JSON object a probe to a file, with ``step`` first; NaN and infinities are written as null.

    Args:
        path: the file; what it holds already is kept.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Write one line.

        Args:
            values: names to numbers.
            step: the optimizer step.
        """
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        _append(self.path, json.dumps({"step": step, **row}) + "\n")


class CsvSink:
    """Append one row a probe to a CSV file: ``step`` and the values, columns fixed by the first row.

    Args:
        path: the file. One that exists must have the same columns.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._columns: list[str] | None = None

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Write one row.

        Args:
            values: names to numbers; names that the first row did not have are refused.
            step: the optimizer step.

        Raises:
            InputError: if the names differ from the columns of the file.
        """
        names = ["step", *values]
        if self._columns is None:
            present = self._read_columns()
            if present is None:
                _append(self.path, _csv_line(names))
            self._columns = present or names
        if names != self._columns:
            differing = sorted(set(names) ^ set(self._columns)) or ["their order"]
            raise InputError(f"{self.path} has other columns; these differ: {', '.join(differing)}. Use a fresh file.")
        _append(self.path, _csv_line([step, *values.values()]))

    def _read_columns(self) -> list[str] | None:
        if not self.path.is_file():
            return None
        with self.path.open(encoding="utf-8", newline="") as stream:
            return next(csv.reader(stream), None)


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _append(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as stream:
            if stream.seek(0, io.SEEK_END) > 0:
                stream.seek(-1, io.SEEK_END)
                if stream.read(1) != b"\n":  # an earlier writer was stopped within a line
                    text = "\n" + text
            stream.write(text.encode())
    except OSError as error:
        raise StorageError(f"could not append to {path}: {error.strerror or error}.") from error
