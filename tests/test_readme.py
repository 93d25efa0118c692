"""The README: its links lead somewhere, its code is tested (conftest.py at the root runs the blocks), its table is honest."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def targets(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("http:", "https:", "#"))]


def slugs(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    explicit = re.findall(r"^\(([\w-]+)\)=$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles} | set(explicit)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for link in targets(page):
        name, _, anchor = link.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), f"{page.name} links to {link}"
        assert not anchor or anchor in slugs(path), f"{page.name} links to {link}"


def test_every_page_of_the_docs_is_linked():
    linked = {link.partition("#")[0] for link in targets(ROOT / "README.md")}
    wanted = {f"docs/{page.name}" for page in PAGES[1:]} - {"docs/index.md", "docs/api.md"}
    assert wanted <= linked


def test_every_page_of_the_docs_is_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert page.stem == "index" or f"\n{page.stem}\n" in index


def test_code_blocks_are_collected():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("```python\n") >= 2
    assert "skip" not in re.findall(r"<!--\s*(\w+)", readme)


def test_files_for_machines():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    import learnmech

    assert "cff-version: 1.2.0" in citation
    assert f"\nversion: {learnmech.__version__}\n" in citation
    assert f"## [{learnmech.__version__}]" in changes
