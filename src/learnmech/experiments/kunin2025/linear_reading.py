"""What the checks and drawings of linear networks and linear attention share."""

import numpy as np
import xarray as xr


def relative_error(history: xr.Dataset, name: str, expected: str | None = None) -> xr.DataArray:
    """Give the size of measured over expected minus 1.

    Args:
        history: that has both.
        name: of the measured variable.
        expected: name of the other; the same with ``expected_`` before it if not given.

    Returns:
        The error, without a sign.
    """
    error: xr.DataArray = abs(history[name] / history[expected or f"expected_{name}"] - 1)
    return error


def power_of_ten(scale: float) -> str:
    """Write a scale as people do.

    Args:
        scale: of the start.

    Returns:
        Such as 1e-4; other numbers in short.
    """
    exponent = round(float(np.log10(scale)))
    return f"1e{exponent}" if np.isclose(scale, 10.0**exponent, rtol=1e-9) and exponent < 0 else f"{scale:g}"
