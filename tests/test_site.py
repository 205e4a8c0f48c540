"""The built site in a real browser: every page, light and dark, wide and narrow."""

import ast
import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.xdist_group("site")
ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = sorted(path.stem for path in (ROOT / "nbs").glob("*.ipynb"))
MODULES = sorted(stem[3:] for stem in CHAPTERS if stem[0] in "01" and stem != "00_tour")
PAGES = [*CHAPTERS, "genindex", "search", "_modules/index",
         *(f"_modules/cka_nb/{name}" for name in MODULES)]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
AXE = {"preload": False, "resultTypes": ["violations"]}
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
    """The site, built with warnings as errors."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-qWE", "--keep-going", ROOT / "nbs", out]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
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
    assert path, "no Chromium or Chrome found: install one, or set BROWSER_PATH (see `make chromium`)"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=QUIET)


@pytest.fixture
def visit(browser, base):
    """visit(name) -> the page, loaded; whatever went wrong by then is in its faults."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")

    def open_page(name):
        page = context.new_page()
        page.faults, page.bytes = [], {}
        page.on("console", lambda m: m.type == "error" and page.faults.append(m.text))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda r: page.faults.append(f"failed: {r.url}"))
        page.on("request", lambda r: r.url.startswith((base, "data:", "blob:"))
                or page.faults.append(f"foreign: {r.url}"))
        page.on("response", lambda r: r.status < 400 or page.faults.append(f"{r.status}: {r.url}"))
        page.on("requestfinished", lambda r: page.bytes.update(
            {r.url: r.sizes()["responseBodySize"]}))
        page.goto(f"{base}{name}.html", wait_until="networkidle")
        page.evaluate("window.MathJax?.startup?.promise")
        return page

    yield open_page
    context.close()


def test_these_are_all_pages(folder):
    found = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.html")}
    assert {name for name in found if not name.startswith("_static/")} == set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page(name, visit):
    page = visit(name)
    assert not page.faults
    formulas = page.locator(".math").count()
    assert page.locator(".math > mjx-container").count() == formulas
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    for picture in page.locator("article .cell_output img").all():
        assert len(picture.get_attribute("alt") or "") > 20, "a picture without a description"
    for scheme in ("light", "dark"):
        if scheme == "dark":
            page.emulate_media(color_scheme=scheme)
            page.reload(wait_until="networkidle")
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        found = Axe().run(page, options=AXE).response["violations"]
        severe = [(f["id"], n["html"], n["any"]) for f in found if f["impact"] in SEVERE
                  for n in f["nodes"]]
        assert not severe, f"{scheme}: {severe[:3]}"
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not page.faults


def test_links_and_anchors(folder):
    pages = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
             for path in folder.rglob("*.html")}
    anchors = {path: {tag["id"] for tag in soup.select("[id]")} for path, soup in pages.items()}
    broken = []
    for path, soup in pages.items():
        for tag in soup.select("a[href]"):
            address, anchor = urldefrag(urljoin(path.as_uri(), tag["href"]))
            if urlsplit(address).scheme != "file":
                assert address.startswith("https://"), address
                continue
            target = Path(unquote(urlsplit(address).path))
            if not target.exists() or anchor and unquote(anchor) not in anchors.get(target, ()):
                broken.append(f"{path.name}: {tag['href']}")
    assert not broken


def test_every_exported_definition_has_its_entry(folder):
    entries = BeautifulSoup((folder / "genindex.html").read_text(encoding="utf-8"), "html.parser")
    listed = {link["href"].partition("#")[2] for link in entries.select("a[href*='#cka_nb.']")}
    for module, names in exported().items():
        for name in names:
            assert name.isupper() or f"cka_nb.{module}.{name}" in listed, f"{module}.{name}"


def test_search_finds_every_exported_name(visit):
    page = visit("search")
    chapter = {stem[3:]: stem for stem in CHAPTERS}
    for module, names in exported().items():
        for name in names:
            page.evaluate("name => Search.performSearch(name)", name)
            page.locator(f"#search-results a[href*='{chapter[module]}.html']").first.wait_for(
                state="attached", timeout=10_000)
    assert not page.faults


def test_weight_of_the_longest_chapter(folder, visit, record_property):
    longest = max(CHAPTERS, key=lambda name: (folder / f"{name}.html").stat().st_size)
    page = visit(longest)
    weight = sum(page.bytes.values()) / 2**20
    print(f"{longest}: {weight:.1f} MiB in {len(page.bytes)} requests")
    for url, size in sorted(page.bytes.items(), key=lambda item: -item[1]):
        print(f"{size / 1024:8.0f} KiB {url.rpartition('/')[2]}")
    assert weight < 6 and len(page.bytes) < 40
