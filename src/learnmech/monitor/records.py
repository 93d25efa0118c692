"""What probes measured, step by step, until it becomes a history."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learnmech.errors import HistoryError
from learnmech.monitor.instrument import Variable


class Records:
    """One record a step: every variable, as a number or as one number a layer or parameter; what was not measured is NaN.

    Args:
        variables: what is measured.
        axes: names of what lies along each dimension, ``layer`` and perhaps ``parameter``, in order.
    """

    def __init__(self, variables: Mapping[str, Variable], axes: Mapping[str, Sequence[str]]) -> None:
        self._variables, self._axes = dict(variables), {name: list(labels) for name, labels in axes.items()}
        self._records: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, step: int) -> bool:
        return step in self._records

    @property
    def steps(self) -> list[int]:
        """The steps that have a record, in order."""
        return sorted(self._records)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Keep the record of a step; an earlier one of the same step is replaced.

        Args:
            step: the step.
            values: names to numbers, or to one number a layer or parameter.
        """
        record = {}
        for name, variable in self._variables.items():
            shape = tuple(len(self._axes[dimension]) for dimension in variable.dimensions)
            record[name] = np.broadcast_to(np.asarray(values.get(name, np.nan), dtype=np.float64), shape).copy()
        self._records[step] = record

    def flat(self, step: int) -> dict[str, float]:
        """Give a record as sinks get it.

        Args:
            step: the step.

        Returns:
            One number a name; numbers of a layer or parameter are called ``name/layer``.
        """
        flat: dict[str, float] = {}
        for name, value in self._records[step].items():
            if value.ndim == 0:
                flat[name] = float(value)
            else:
                labels = self._axes[self._variables[name].dimensions[0]]
                flat.update({f"{name}/{label}": float(part) for label, part in zip(labels, value, strict=True)})
        return flat

    def columns(self) -> dict[str, tuple[Sequence[str], np.ndarray, Mapping[str, str]]]:
        """Give every variable over all steps, as :func:`learnmech.history.build` takes them.

        Returns:
            Name to dimensions, values and attributes.
        """
        return {
            name: (
                ("step", *variable.dimensions),
                np.stack([self._records[step][name] for step in self.steps]),
                variable.attributes,
            )
            for name, variable in self._variables.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Give everything as tensors, numbers and text.

        Returns:
            A mapping that ``torch.load(weights_only=True)`` reads.
        """
        return {
            **{f"{dimension}s": list(labels) for dimension, labels in self._axes.items()},
            "variables": list(self._variables),
            "records": {
                step: {name: torch.from_numpy(np.array(value)) for name, value in record.items()}
                for step, record in self._records.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Args:
            state: the state.

        Raises:
            HistoryError: if it is of other layers or variables.
        """
        axes = {f"{dimension}s": labels for dimension, labels in self._axes.items()}
        for key, own in {**axes, "variables": list(self._variables)}.items():
            if list(state[key]) != own:
                raise HistoryError(f"the checkpoint measured the {key} {state[key]}, this monitor measures {own}.")
        records: Mapping[int, Mapping[str, Tensor]] = state["records"]
        self._records = {
            int(step): {name: value.numpy().copy() for name, value in record.items()}
            for step, record in records.items()
        }
