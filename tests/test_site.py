"""The built site in a real browser: every page, light and dark, wide and narrow."""

import ast
import base64
import functools
import http.server
import importlib
import inspect
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from colab import settings
from filelock import FileLock
from PIL import Image
from playwright.sync_api import sync_playwright

import cka_nb

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "nbs").glob("*.ipynb"))
ORDER = [*dict.fromkeys(re.findall(  # in which they are read: as the parts of the book list them
    r"\* \[[^]]+\]\((\w+)\.ipynb\): ", (ROOT / "nbs" / "index.ipynb").read_text("utf-8")))]
MODULES = sorted(path.stem for path in (ROOT / "cka_nb").glob("[a-z]*.py"))
# a module that lists no name has no entries, and so no page of its source
SOURCES = [f"_modules/cka_nb/{name}" for name in MODULES
           if "\n__all__ = []\n" not in (ROOT / "cka_nb" / f"{name}.py").read_text("utf-8")]
PAGES = [*CHAPTERS, "genindex", "search", "_modules/index", *SOURCES]
LIKE_ANOTHER = {*SOURCES} - {"_modules/cka_nb/data"}  # one template and one set of colours
# some of them always, the others with `--flags slow`
SOME = {f"_modules/cka_nb/{name}" for name in ("benchmark", "data", "options")}
# where colours are judged, in both schemes, which takes most of a page's time; the others have no
# kind of text that these have not; on every page with `--flags slow`
COLOURS = {"index", "00_tour", "62_many_gpus", "64_results", "genindex", "search",
           "_modules/index", "_modules/cka_nb/data"}
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
AXE = {"preload": False, "resultTypes": ["violations"]}
COLOURLESS = AXE | {"rules": {"color-contrast": {"enabled": False}}}
# the parts of code and of formulas have no role of their own, and are most of a page's elements
PLAIN = """document.querySelectorAll('.highlight pre, mjx-container').forEach(
    part => part.replaceChildren(part.textContent))"""
# words of one kind have one colour: three of each are judged; with `--flags slow` all of them
FEWER = """const seen = {};
    document.querySelectorAll('.highlight pre span[class]').forEach(word => {
        let kind = word.className;
        for (let at = word.parentElement; at && at.tagName != 'ARTICLE'; at = at.parentElement)
            kind += `|${at.tagName} ${at.className} ${at.style.cssText}`;
        seen[kind] = 1 + (seen[kind] || 0);
        if (seen[kind] > 3 && !word.childElementCount && !word.style.cssText)
            word.replaceWith(word.textContent); })"""
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SEVERE = {"serious", "critical"}


def exported():
    """{module: names in its __all__}."""
    found = {}
    for name in MODULES:
        tree = ast.parse((ROOT / "cka_nb" / f"{name}.py").read_text(encoding="utf-8"))
        found[name] = next(ast.literal_eval(node.value) for node in tree.body
                           if isinstance(node, ast.Assign) and node.targets[0].id == "__all__")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The site, built with warnings as errors, once for all processes."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top
    out, done = top / "site", top / "site is built"
    with FileLock(top / "site.lock"):
        if not done.exists():
            command = ["make", "docs", f"SITE={out}", f"BIN={Path(sys.executable).parent}"]
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert run.returncode == 0, run.stdout + run.stderr
            done.touch()
    return out


@pytest.fixture(scope="module")
def base(folder):
    """Its address on loopback."""
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments): pass

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, BROWSERS)), None)
    assert path, "no Chromium or Chrome found: `make chromium`, or set BROWSER_PATH"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=QUIET)


@pytest.fixture(scope="module")
def context(browser):
    """One window for all pages; another one takes longer to open than some pages to judge."""
    return browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")


def opened(page, base, name):
    """The page, loaded; whatever went wrong by then is in its faults."""
    page.faults, page.bytes = [], {}
    page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda r: page.faults.append(f"failed: {r.url}"))
    page.on("request", lambda r: r.url.startswith((base, "data:", "blob:"))
            or page.faults.append(f"foreign: {r.url}"))
    page.on("response", lambda r: r.status < 400 or page.faults.append(f"{r.status}: {r.url}"))
    page.on("requestfinished", lambda r: page.bytes.update(
        {r.url: r.sizes()["responseBodySize"]}))
    page.goto(f"{base}{name}.html", wait_until="load")
    page.evaluate("window.MathJax?.startup?.promise")
    return page


@pytest.fixture
def visit(context, base):
    """visit(name) -> the page, as `opened` gives it."""
    page = context.new_page()
    yield functools.partial(opened, page, base)
    page.close()


def width_on_a_phone(page):
    """Of all that the page holds, in pixels, where 390 are shown."""
    wide = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 800})
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(wide)
    return width


def test_these_are_all_pages(folder):
    found = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.html")}
    assert {name for name in found if not name.startswith("_static/")} == set(PAGES)
    assert SOME <= set(PAGES)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.slow] * (name in {*SOURCES} - SOME)) for name in PAGES])
def test_page(name, visit, request):
    page = visit(name)
    assert not page.faults
    formulas = page.locator(".math").count()
    assert page.locator(".math > mjx-container").count() == formulas
    assert page.locator("mjx-merror, [data-mjx-error], mjx-container [fill=red]").count() == 0
    for picture in page.locator("article img").all():
        assert len(set(picture.get_attribute("alt") or "")) > 10, "a picture without a description"
    if name in LIKE_ANOTHER:  # what they look like was judged there
        assert width_on_a_phone(page) <= 390 and not page.faults
        return
    # what is folded is read too; opening fades in, and colours are judged when that is over
    page.add_style_tag(content="* { animation: none !important; transition: none !important; }")
    slow = "slow" in request.config.getoption("flags")
    colours = name in COLOURS or slow
    for scheme in ("light", "dark")[:1 + colours]:
        if scheme == "dark":
            page.emulate_media(color_scheme=scheme)
            page.reload(wait_until="load")
            page.add_style_tag(content="* { animation: none !important; }")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert width_on_a_phone(page) <= 390
        if not slow:
            page.evaluate(FEWER if colours else PLAIN)
        found = Axe().run(page, options=AXE if colours else COLOURLESS).response["violations"]
        severe = [(f["id"], n["html"], n["any"]) for f in found if f["impact"] in SEVERE
                  for n in f["nodes"]]
        assert not severe, f"{scheme}: {severe[:3]}"
    assert not page.faults


@functools.cache
def soup_at(path):
    """A page, parsed; words of code are without their colours, which are most of its elements."""
    plain = lambda code: re.sub(r'<span class="[a-z]\w{0,2}">([^<]*)</span>', r"\1", code[0])
    page = re.sub(r"<pre>.*?</pre>", plain, path.read_text(encoding="utf-8"), flags=re.S)
    return BeautifulSoup(page, "html.parser")


def soup_of(folder, name):
    return soup_at(folder / f"{name}.html")


def kinds_of_text(folder, name):
    """Kinds of words in code, styles that one element has alone, and what was an error's output."""
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    return {*re.findall(r'<span class="(\w{1,3})">', page),
            *re.findall(r'style="([^"]*color[^"]*)"', page), *re.findall("stderr", page)}


def test_colours_are_judged_wherever_they_occur(folder):
    judged = set().union(*(kinds_of_text(folder, name) for name in COLOURS))
    others = {name: kinds_of_text(folder, name) - judged for name in PAGES}
    assert not {name: more for name, more in others.items() if more}


def test_links_and_anchors(folder):
    pages = {path: soup_at(path) for path in folder.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in soup.find_all(id=True)} for path, soup in pages.items()}
    links = {(path.parent, path if tag["href"].startswith("#") else None, tag["href"])
             for path, soup in pages.items() for tag in soup.find_all("a", href=True)}
    broken = []
    for within, page, link in links:
        address, anchor = urldefrag(urljoin((page or within / "any").as_uri(), link))
        if urlsplit(address).scheme != "file":
            assert address.startswith("https://"), address
            continue
        target = Path(unquote(urlsplit(address).path))
        if not target.exists() or anchor and unquote(anchor) not in anchors.get(target, ()):
            broken.append(f"{page or within}: {link}")
    assert links and not broken


def test_long_checks_beyond_the_first_are_folded(folder):
    """Of each definition one cell of checks is shown; others that show nothing are in a fold."""
    folds = [d for name in PAGES for d in soup_of(folder, name).select("article details")
             if re.search(r"More checks \(\d+\)", d.summary.get_text())]
    assert len(folds) > 15
    assert all("assert" in d.get_text() or "expect_fail" in d.get_text() for d in folds)


def test_what_a_cell_writes_as_a_table_is_one(folder):
    assert soup_of(folder, "index").select_one("article table"), "the front page's results"
    for stem in CHAPTERS:
        for text in soup_of(folder, stem).select("article p"):
            assert not re.search(r"\|\s*:?-{3,}:?\s*\|", text.text), f"{stem}: {text.text[:200]}"


def parameters(function):
    if getattr(function, "_is_protocol", False):
        return []  # nobody makes one
    if inspect.isclass(function) and function.__mro__[1].__module__ == "builtins" and not {
            "__init__", "__new__"} & vars(function).keys() and function.__mro__[1] is not object:
        return []  # those of a list, of a warning
    names = inspect.signature(function).parameters
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("stem", [stem for stem in CHAPTERS if stem[3:] in MODULES])
def test_entries_say_what_the_code_says(stem, folder):
    soup, module = soup_of(folder, stem), importlib.import_module(f"cka_nb.{stem[3:]}")
    for name in exported()[stem[3:]]:
        if name.isupper():
            continue
        made, members = getattr(module, name), {}
        if inspect.isclass(made):
            members = {f"{name}.{k}": getattr(v, "__func__", v) for k, v in vars(made).items()
                       if (k[0] != "_" or k == "__call__") and getattr(v, "__doc__", None)
                       and k not in getattr(made, "__dataclass_fields__", ())
                       and inspect.isroutine(v)}
        for path, function in {name: made, **members}.items():
            entry = soup.find(id=f"cka_nb.{stem[3:]}.{path}")
            assert entry, f"{path} has no entry"
            shown = [tag.select_one(".n").text for tag in entry.select(".sig-param")
                     if tag.select_one(".n")]
            assert shown == parameters(function), path
            text = " ".join(entry.find_next_sibling("dd").get_text(" ").split())
            words = re.findall(r"\w+", inspect.getdoc(function))
            assert re.findall(r"\w+", text)[:len(words)] == words, path
            listed = [tag.text for tag in entry.find_next_sibling("dd").select(
                "dl.field-list > dd.field-odd strong")]
            assert set(parameters(function)) <= set(listed), path
            assert entry.select_one("a[href^='_modules']"), f"{path} has no link to its source"


@pytest.mark.parametrize("stem", [stem for stem in CHAPTERS if stem != "index"])
def test_what_a_chapter_page_offers(stem, folder):
    soup, place = soup_of(folder, stem), ORDER.index(stem)
    notebook = f"nbs/{stem}.ipynb"
    on_colab = f"a[href^='https://colab.research.google.com/'][href$='/{notebook}']"
    assert len(soup.select(on_colab)) == (1 if settings()["package"]["repository"] else 0)
    assert soup.select_one(f"a[href='_sources/{stem}.ipynb']"), "no download"
    assert soup.select_one("button.theme-switch-button"), "no dark mode"
    assert cka_nb.__version__ in soup.title.text
    following = [*ORDER[1:], "genindex"][place]
    assert soup.select_one(f"a.right-next[href='{following}.html']") or following == "genindex"
    assert soup.select_one("a.left-prev")
    for picture in soup.select("article .cell_output img"):
        assert picture.find_parent("figure").find("figcaption").text.strip(), "no caption"


@pytest.mark.parametrize("address, leads_to", [
    ("", ""), ("https://github.com/some-one/cka_nb.git", "https://github.com/some-one/cka_nb"),
    ("https://github.com/some-one/cka_nb", "https://github.com/some-one/cka_nb"),
    ("https://example.org/cka_nb.git", "")])  # Colab and the theme know no other hosts
def test_site_links_to_the_repository_in_the_settings_or_to_none(address, leads_to, monkeypatch):
    read = ConfigParser.read

    def with_address(self, *arguments, **options):
        read(self, *arguments, **options)
        self["package"]["repository"] = address

    monkeypatch.setattr(ConfigParser, "read", with_address)
    options = runpy.run_path(str(ROOT / "nbs" / "conf.py"))["html_theme_options"]
    assert options["repository_url"] == leads_to
    assert options["use_repository_button"] == bool(options["launch_buttons"]) == bool(leads_to)


def test_names_in_the_text_lead_to_their_entries(folder):
    links = [link for stem in CHAPTERS for link in soup_of(folder, stem).select(
        "article a:has(> code)[href*='#cka_nb.']")]
    assert len(links) > 30
    for link in links:
        assert link["href"].endswith("." + link.text.removeprefix("cka.").split("(")[0]), link


def test_no_file_of_the_site_asks_another_host(folder):
    for path in folder.rglob("*.html"):
        for tag in soup_at(path).find_all(True):
            for attribute in ("src", "srcset", "href", "data", "poster", "style"):
                if tag.name != "a":
                    assert "//" not in str(tag.get(attribute, "")), f"{path.name}: {tag}"
    for path in folder.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", path.read_text()), path


def test_search_finds_every_exported_name(visit):
    page = visit("search")
    page.evaluate("DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false")  # it reads every page found
    chapter = {stem[3:]: stem for stem in CHAPTERS}
    for module, names in exported().items():
        for name in names:
            page.evaluate("""name => {
                document.querySelector('#search-results').replaceChildren();
                Search.performSearch(name); }""", name)
            anchor = "" if name.isupper() else f"#cka_nb.{module}.{name}"
            found = page.locator(f"#search-results a[href*='{chapter[module]}.html{anchor}']")
            found.first.wait_for(state="attached", timeout=10_000)
    assert not page.faults


def test_search_finds_the_chapter_of_every_term_of_the_glossary(visit):
    page = visit("search")
    page.evaluate("DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false")
    text = "".join(json.loads((ROOT / "nbs/72_glossary.ipynb").read_text())["cells"][2]["source"])
    terms = re.findall(r"^\| (.+?) \| .* \| \[[^]]+\]\((\w+)\.ipynb\) \|$", text, re.M)
    assert len(terms) == text.count("\n| ") - 1 >= 40  # but its heading
    for term, chapter in terms:
        page.evaluate("""term => {
            document.querySelector('#search-results').replaceChildren();
            Search.performSearch(term); }""", term)
        found = page.locator(f"#search-results a[href*='{chapter}.html']")
        found.first.wait_for(state="attached", timeout=10_000)
    assert not page.faults


def luminance(colour):
    """Relative luminance of red, green and blue from 0 to 255, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
              for c in (part / 255 for part in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_figures_stand_out_in_both_schemes(browser, base, tmp_path):
    import matplotlib.pyplot as plt
    with plt.style.context("cka_nb.house"):
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        figure, ax = plt.subplots(figsize=(3.4, 2))
        for place, colour in enumerate(["black", "0.5", *cycle]):
            ax.add_patch(plt.Rectangle((place, 0), 1, 1, color=colour))
        ax.set(xlim=(0, len(cycle) + 2), ylim=(-1, 2))  # paper above and below
        ax.axis("off")
        figure.savefig(tmp_path / "colours.png", dpi=100)
        plt.close(figure)
    picture = base64.b64encode((tmp_path / "colours.png").read_bytes()).decode()
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, device_scale_factor=1)
        page = opened(context.new_page(), base, "59_method")
        drawn = page.locator(".cell_output img.drawn").first
        drawn.evaluate("(image, its) => { image.src = 'data:image/png;base64,' + its; }", picture)
        drawn.screenshot(path=tmp_path / f"{scheme}.png")
        page_colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        shown = Image.open(tmp_path / f"{scheme}.png").convert("RGB")
        around = shown.getpixel((shown.width // 2, shown.height // 6))
        assert around == tuple(map(int, re.findall(r"\d+", page_colour)[:3])), "a slab"
        for place in range(len(cycle) + 2):
            at = int(shown.width * (place + 0.5) / (len(cycle) + 2)), shown.height // 2
            light, dark = sorted(map(luminance, (shown.getpixel(at), around)))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 3, (scheme, place, shown.getpixel(at))
        context.close()


def test_the_summary_sheet_prints_on_one_page(browser, base):
    page = opened(browser.new_page(), base, "73_summary")
    page.locator(".math > mjx-container").last.wait_for(state="attached")
    edges = dict.fromkeys(("top", "bottom", "left", "right"), "1cm")
    sheet = page.pdf(format="A4", margin=edges)
    assert len(re.findall(rb"/Type\s*/Page\b", sheet)) == 1
    page.close()


def test_report_of_a_run_opens_offline(browser, tmp_path):
    import matplotlib.pyplot as plt

    from cka_nb.report import write_report
    figure, ax = plt.subplots(figsize=(2, 2))
    ax.plot([1, 2])
    file = write_report(tmp_path / "report.html", "Student of <2> classes", "A run.",
                        {"seed": 0}, {"Parts of the loss": figure}, [["", "a"], ["student", "9"]])
    plt.close(figure)
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, offline=True)
        page, asked = context.new_page(), []
        page.on("request", lambda r: asked.append(r.url))
        page.on("console", lambda m: asked.append(m.text))
        page.goto(file.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
        assert page.locator("h1").inner_text() == "Student of <2> classes"
        assert page.evaluate("document.images[0].naturalWidth") > 100
        found = Axe().run(page, options=AXE).response["violations"]
        assert not [v["id"] for v in found if v["impact"] in SEVERE]
        context.close()


def test_weight_of_the_longest_chapter(folder, browser, base):
    longest = max(CHAPTERS, key=lambda name: (folder / f"{name}.html").stat().st_size)
    page = opened(browser.new_page(), base, longest)  # of a visitor who has nothing of it yet
    weight = sum(page.bytes.values()) / 2**20
    print(f"{longest}: {weight:.1f} MiB in {len(page.bytes)} requests")
    for url, size in sorted(page.bytes.items(), key=lambda item: -item[1]):
        print(f"{size / 1024:8.0f} KiB {url.rpartition('/')[2]}")
    assert weight < 6 and len(page.bytes) < 40
