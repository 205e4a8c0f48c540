"""The notebooks are the source: package, README and stored notebooks agree with them."""

import ast
import base64
import io
import re
import shutil
from pathlib import Path

import pytest
import yaml
from fastcore.nbio import read_nb
from IPython.core.inputtransformer2 import TransformerManager
from nbdev.clean import nbdev_clean
from nbdev.doclinks import nbdev_export
from PIL import Image
from readme import PICTURES, readme

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path for path in (ROOT / "nbs").glob("*.ipynb") if path.stem != "index")
# they export nothing
BARE = ("00_tour", "59_method", "60_own_teachers", "61_one_gpu", "62_many_gpus",
        "63_when_things_go_wrong", "64_results", "65_estimators", "66_contrast_measured",
        "67_new_images", "68_owners_found", "69_odd_heaps", "70_witness_measured",
        "71_troubleshooting", "72_glossary", "73_summary")
NUMBER = {path.stem[3:]: int(path.stem[:2]) for path in CHAPTERS if path.stem[:2].isdigit()}


def contents(folder, pattern):
    """{name: text} of the matching files, every byte kept."""
    return {path.name: path.read_bytes().decode() for path in sorted(folder.glob(pattern))}


def cell_sources(path):
    return [cell.source for cell in read_nb(path).cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A copy of the notebooks and the hand-written files, exported and cleaned elsewhere."""
    top = tmp_path_factory.mktemp("fresh")
    shutil.copy(ROOT / "pyproject.toml", top)
    shutil.copytree(ROOT / "nbs", top / "nbs")
    (top / "cka_nb").mkdir()
    for path in (ROOT / "cka_nb").glob("__*__.py"):
        shutil.copy(path, top / "cka_nb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        patch.delenv("IN_TEST", raising=False)  # under it nbdev exports nothing
        nbdev_export()
        nbdev_clean()
    return top


def test_package_is_what_the_notebooks_export(fresh):
    committed, exported = contents(ROOT / "cka_nb", "*.py"), contents(fresh / "cka_nb", "*.py")
    assert committed.keys() == exported.keys(), "a stray or a missing module: `make export`"
    for name, text in exported.items():
        assert committed[name] == text, f"cka_nb/{name} has drifted: `make export`"


def test_notebooks_are_clean(fresh):
    cleaned = contents(fresh / "nbs", "*.ipynb")
    for name, text in contents(ROOT / "nbs", "*.ipynb").items():
        assert text == cleaned[name], f"nbs/{name} is not clean: `make export`"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_stored_outputs_do_not_say_on_which_machine_they_were_made(path):
    found = re.search(r"/[^ \"]{0,99}/cka_nb/\w+\.py", path.read_text(encoding="utf-8"))
    assert not found, f"{found[0]}: catch the warning, then `make notebooks`"


def markdown(stem):
    """All text of a chapter."""
    cells = read_nb(ROOT / "nbs" / f"{stem}.ipynb").cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_every_chapter_stands_in_one_part_of_the_book():
    listed = re.findall(r"^\* \[.+?\]\((\w+)\.ipynb\): .", markdown("index"), re.M)
    assert sorted(listed) == [path.stem for path in CHAPTERS]
    assert len(re.findall(r"^### ", markdown("index"), re.M)) == 9


def test_the_glossary_leads_to_chapters_that_use_its_words():
    terms = re.findall(r"^\| ([^\[|]+) \| .+ \| \[(.+)\]\((\w+)\.ipynb\) \|$",
                       markdown("72_glossary"), re.M)
    assert len(terms) > 30 and [term.lower() for term, *_ in terms] == sorted(
        term.lower() for term, *_ in terms)
    for term, title, stem in terms:
        text = markdown(stem)
        assert text.startswith(f"# {title}\n"), (term, title)
        assert term.lower() in text.lower().replace("_", " "), (term, stem)


def test_papers_that_chapters_cite_are_in_the_references():
    listed = dict(re.findall(r"^\| \[.+?\]\((https:\S+)\) \| (.+) \|$",
                             markdown("72_glossary"), re.M))
    paper = r"https://(?:arxiv\.org/abs|doi\.org|www\.jmlr\.org)/[^\s)\"]+"
    for path in CHAPTERS:
        if path.stem == "72_glossary":
            continue
        for address in re.findall(paper, markdown(path.stem)):
            assert f"({path.name})" in listed[address], (path.stem, address)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_have_the_style_and_the_widths_of_the_house(path):
    pictures = [base64.b64decode(out["data"]["image/png"])
                for cell in read_nb(path).cells for out in cell.get("outputs", ())
                if "image/png" in out.get("data", {})]
    for picture in map(Image.open, map(io.BytesIO, pictures)):
        assert picture.width / picture.info["dpi"][0] < 8, "wider than a page"
    drawn = any("plt." in source for source in cell_sources(path))
    if pictures and drawn and path.stem != "00_tour":  # which needs nothing of ours
        assert any("plt.style.use('cka_nb.house')" in source for source in cell_sources(path))


def test_readme_is_what_the_index_says():
    text, pictures = readme()
    assert (ROOT / "README.md").read_text(encoding="utf-8") == text, "drifted: `make readme`"
    stored = {f"{PICTURES}/{path.name}": path.read_bytes() for path in (ROOT / PICTURES).glob("*")}
    assert stored == pictures, "a picture has drifted: `make readme`"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_exports_the_module_of_its_name(path):
    assert re.fullmatch(r"\d\d_[a-z][a-z_]*", path.stem), "a chapter is called NN_name.ipynb"
    targets = re.findall(r"^#\|\s*default_exp\s+(\S+)", "\n".join(cell_sources(path)), re.M)
    assert targets == ([] if path.stem in BARE else [path.stem[3:]])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_imports_by_name_from_earlier_chapters(path):
    for source in cell_sources(path):
        tree = ast.parse(TransformerManager().transform_cell(source))  # also reads %magics
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    check_import(path, name.name, by_name=False)
            elif isinstance(node, ast.ImportFrom):
                assert all(name.name != "*" for name in node.names), f"*: {ast.unparse(node)}"
                check_import(path, node.module or ".", by_name=True)


def check_import(path, module, by_name):
    """One imported module of one chapter: nbdev never, cka_nb.name only from smaller numbers."""
    package, _, name = module.partition(".")
    assert package != "nbdev", "a chapter must run where nbdev is not installed"
    if package == "cka_nb" and (name or path.stem not in BARE):  # they may `import cka_nb as cka`
        assert by_name and name, f"write `from cka_nb.chapter import name`, not {module}"
        assert NUMBER.get(name, 100) < int(path.stem[:2]), f"{module} is not an earlier chapter"


def test_workflows_and_continuous_integration_only_call_make():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        steps = [step for job in yaml.safe_load(path.read_text())["jobs"].values()
                 for step in job["steps"]]
        calls = [step["run"].split() for step in steps if "run" in step]
        assert calls
        for make, target, *rest in calls:
            assert make == "make" and target in targets, path.name
            assert rest in ([], ["TAG=${{", "github.ref_name", "}}"]), path.name
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


def test_the_tools_stay_small():
    sizes = {path.name: len(path.read_text(encoding="utf-8").splitlines())
             for path in (ROOT / "tools").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert set(sizes) == {"colab.py", "nbdev_sphinx.py", "oldest.py", "pre-commit", "readme.py"}
    assert sum(sizes.values()) <= 700, f"move what is a test or a study elsewhere: {sizes}"
