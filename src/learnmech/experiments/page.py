"""The page of a figure: the drawing, what is claimed of it, how it was made, what to cite."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import xarray as xr

from learnmech import __version__
from learnmech.citation import cite
from learnmech.experiments.reproduction import Claim

_SEVERITY = {"pass": "good", "fail": "problem", "not tested at this scale": "unknown"}


def render_page(
    heading: str,
    picture: str,
    history: xr.Dataset,
    *,
    note: str = "",
    caption: str = "",
    settings: Mapping[str, Any] | None = None,
    claims: Sequence[Claim] = (),
) -> str:
    """Make a page that needs no network.

    Args:
        heading: of the page.
        picture: HTML or SVG of the figure.
        history: what is drawn; its attributes say what failed and what to cite.
        note: a line under the heading.
        caption: how to read the figure.
        settings: how it was made.
        claims: what was checked.

    Returns:
        A complete HTML page. All text is escaped; ``picture`` is not.
    """
    style = resources.files("learnmech.report").joinpath("style.css").read_text(encoding="utf-8")
    failures = json.loads(history.attrs.get("failures", "[]"))
    failed = f"<p>{len(failures)} cells failed; they are grey.</p>" if failures else ""
    rows = "".join(
        f"<tr><th>{html.escape(str(name).replace('_', ' '))}</th><td>{html.escape(_text(value))}</td></tr>"
        for name, value in {**(settings or {}), "learnmech version": __version__}.items()
    )
    parts = [
        f"<header><h1>{html.escape(heading)}</h1><p class='caption'>{html.escape(note)}</p></header>",
        f"<section id='figure'><div class='scroll'>{picture}</div>"
        f"<p class='caption'>{html.escape(caption)}</p>{failed}</section>",
        f"<section id='claims'><h2>Claims</h2>{''.join(map(_article, claims))}</section>" if claims else "",
        f"<section id='settings'><h2>Settings</h2><table class='settings'><tbody>{rows}</tbody></table></section>",
        f"<section id='cite'><h2>How to cite</h2><pre>{html.escape(cite(history))}</pre></section>",
        f"<footer>Made by learnmech {html.escape(__version__)}. One file, no network needed.</footer>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(heading)}</title><style>{style} #figure svg {{ max-width: 100%; height: auto; }}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _article(claim: Claim) -> str:
    return (
        f'<article class="finding {_SEVERITY[claim.verdict]}"><h3>{html.escape(claim.key)}: {html.escape(claim.text)} '
        f"<small>{html.escape(claim.verdict)}</small></h3><p>Expected: {html.escape(claim.expected)}</p>"
        f'<p class="evidence">Measured: {html.escape(claim.measured)}</p></article>'
    )


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)
