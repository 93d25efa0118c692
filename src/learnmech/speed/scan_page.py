"""A scan as one HTML file."""

import html
from pathlib import Path

from learnmech.files import write_atomically
from learnmech.speed.scan_result import ScanResult


def write_scan_page(result: ScanResult, path: str | Path) -> Path:
    """Write the verdict, the powers and the figure of a scan as one HTML file that needs no network.

    Args:
        result: the scan.
        path: where to; written in one step.

    Returns:
        The path written. Raises what :func:`learnmech.files.write_atomically` raises.
    """
    title = f"Scan of widths and depths{f': {result.claim}, {result.verdict}' if result.claim else ''}"
    plot = result.figure().to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    return write_atomically(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        "<style>body{font-family:system-ui,sans-serif;color:#1f2933;max-width:1080px;margin:2rem auto;padding:0 1rem}"
        "pre{overflow-x:auto;background:#f5f7fa;padding:1rem}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><pre>{html.escape(str(result))}</pre>{plot}</body></html>\n",
    )
