"""README.md, CONTRIBUTING.md, docs/ and CITATION.cff: links and file names exist, facts agree with the code."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

import tlee
from tlee.params import METHOD_SETTINGS, ModelParams, load_params

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def text_of(page: Path) -> str:
    """Return a page without its blocks of code; of a notebook the Markdown cells."""
    if page.suffix == ".ipynb":
        cells = nbformat.read(page, as_version=4).cells
        return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    """Results are left out: experiments in the work tree may have others (for those in git: test_committed_run)."""
    for link in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if "://" in link or target.is_relative_to(ROOT / "results"):
            continue
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_code_that_are_named_exist(page):
    named = re.findall(r"`((?:tlee|tests|notebooks|recipes|docs|\.ci)/[\w/.]+)`", text_of(page))
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.name)
def test_parameters_that_are_named_exist(page):
    sections = load_params(ROOT / "params.yaml").model_dump()
    named = set(re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", text_of(page))) - {("latency", "json")}  # a file
    assert [f"{section}.{key}" for section, key in named if section in sections and key not in sections[section]] == []


def test_the_pages_list_every_choice_of_the_model():
    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    for key in ("method", "backbone", "branch", "reuse", "accumulate", "gate", "readout"):
        row = next(line for line in page.splitlines() if line.startswith(f"| `model.{key}`"))
        choices = ModelParams.model_json_schema()["properties"][key]["enum"]
        assert set(choices) <= set(re.findall(r"`(\w+)`", row)), key


def test_methods_override_the_settings_that_their_page_states():
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for method, settings in METHOD_SETTINGS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{method}` |"))
        stated = re.findall(r"`(\w+): (\w+)`", row.split("|")[4])
        assert stated == [(key, str(value)) for key, value in settings.items()]


def test_the_readme_fits_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == tlee.__version__
    assert len(citation["references"]) == 2
