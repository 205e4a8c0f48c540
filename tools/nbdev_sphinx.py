"""Sphinx extension: notebooks are read as nbdev reads them, with an API entry for each export."""

import ast
import base64
import importlib
import io
import json
import re
from dataclasses import is_dataclass

from docutils import nodes
from fastcore.docments import docments
from fastcore.nbio import dict2nb, mk_cell, nb2str
from nbdev.process import NBProcessor
from PIL import Image
from readme import CONTENTS, PROCESSORS
from sphinx.util.nodes import make_refnode

CAPTION = re.compile(r"\*Figure: (.+?)\*\s*(?=\n\n|$)", re.S)  # opens the cell after the figure's
FIELD = re.compile(r"^ +(\w+): ([^#\n=]+?)(?:=[^#\n]+?)? *# (.+)$", re.M)  # of a plain record
CHECK = re.compile(r"\b(?:assert|assert_close|expect_fail)\b")
MARKUP = re.compile(r"([*<_$])(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of backticks


def entry(node, obj, source, owner="", fence="::::"):
    """An entry of Sphinx's Python domain: signature, docstring, parameters, result, methods."""
    is_class = isinstance(node, ast.ClassDef)
    members = [m for m in node.body if is_class and isinstance(m, ast.FunctionDef)]
    call = next((m for m in members if m.name == "__init__"), node)
    decorators = {ast.unparse(d) for d in node.decorator_list}
    kind = "class" if is_class else "method" if owner else "function"
    kind, fields, header, result = "property" if "property" in decorators else kind, [], "", None
    if is_class and call is node:  # a NamedTuple or dataclass; another class is made of nothing
        fields = [FIELD.findall(line)[0] for m in node.body if isinstance(m, ast.AnnAssign)
                  for line in [source.split("\n")[m.lineno - 1]]]
        record = is_dataclass(obj) or hasattr(obj, "_fields")
        header = f"({', '.join(name for name, *_ in fields)})" if record else ""
    elif kind != "property":
        comments = docments(obj)
        arguments = [a for a in ast.walk(call.args) if isinstance(a, ast.arg)]
        types = {a.arg: ast.unparse(a.annotation) if a.annotation else "" for a in arguments}
        fields = [(n, t, comments.get(n) or "") for n, t in types.items()][is_class or bool(owner):]
        for argument in arguments:
            argument.annotation = None  # the signature has names and defaults
        arrow = f" -> {ast.unparse(node.returns)}" if node is call and node.returns else ""
        header = f"({re.sub(r'^(self|cls)(, )?', '', ast.unparse(call.args))})"
        header += arrow.replace("'", "")
        result = comments.get("return") if arrow not in ("", " -> None") else None
    lines = [f":param {type_} {name}: {text}" for name, type_, text in fields]
    lines += [f":returns: {result}"] if result else []
    inner = [entry(m, getattr(obj, m.name), source, f"{node.name}.", ":::") for m in members
             if ast.get_docstring(m) and (m.name[0] != "_" or m.name == "__call__")]
    header = f"{fence}{{py:{kind}}} {owner}{node.name}{header}"
    header += "\n:classmethod:" if "classmethod" in decorators else ""
    doc = MARKUP.sub(r"\\\1", ast.get_docstring(node) or "")
    return "\n\n".join([header, doc, "\n".join(lines), *inner, fence])


def toctrees(contents):
    """The parts of the book, as its contents list them, and the index of names after the last."""
    lists = [["```{toctree}", ":hidden:", f":caption: {name}", "",
              *re.findall(r"\]\((\w+)\.ipynb\)", its)] for name, its in CONTENTS.findall(contents)]
    lists[-1].append("Index of names <genindex>")
    return "\n\n".join("\n".join([*lines, "```"]) for lines in lists)


def shown_width(picture):
    """The width of a stored PNG in pixels of a page, 96 to the inch: text has its size."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    return f"{round(96 * image.width / image.info['dpi'][0])}px"


def bound(source):
    """The names that a cell gives to something."""
    tree = [n for node in ast.parse(source).body for n in ast.walk(node)]
    return {*(n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)),
            *(n.name for n in tree if isinstance(n, (ast.FunctionDef, ast.ClassDef)))}


def is_needed(source, later):
    """Whether a later cell reads what this one has named, before it names something so itself."""
    names = bound(source)
    for other in later:
        tree = ast.walk(ast.parse(other))
        read = {n.id for n in tree if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        if read & names - bound(other):
            return True
        names -= bound(other)
    return False


def read_notebook(app, docname, content):
    """`source-read`: what nbdev's directives say, put as MyST-NB understands it."""
    nb = NBProcessor(nb=dict2nb(json.loads(content[0])), procs=PROCESSORS, process=True).nb
    cells, module, silent = [], None, -1  # silent: check cells without output since a definition
    code = [cell.source if cell.cell_type == "code" else "" for cell in nb.cells]
    for k, (cell, after) in enumerate(zip(nb.cells, [*nb.cells[1:], mk_cell("", "markdown")])):
        directives, shown = cell.directives_, {"code_prompt_show": "Answers"}
        cells.append(cell)
        if cell.cell_type == "markdown":
            continue
        if "default_exp" in directives:
            module = importlib.import_module(f"cka_nb.{directives['default_exp']}")
            cells.append(mk_cell(f":::{{py:module}} {module.__name__}\n:::", "markdown"))
        if directives.keys() & {"export", "exports", "exporti"}:
            made = [node for node in ast.parse(cell.source).body
                    if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
            listed = [node for node in made if node.name[0] != "_" and "exporti" not in directives]
            text = "\n\n".join(entry(node, getattr(module, node.name), cell.source)
                               for node in listed)
            cells.insert(len(cells) - ("export" in directives), mk_cell(text, "markdown"))
            shown["code_prompt_show"] = "Source: " + (", ".join(n.name for n in made) or "imports")
            silent = 0 if made else silent
        elif silent >= 0 and not cell.outputs and (checks := len(CHECK.findall(cell.source))):
            silent += 1  # the first is shown, and short ones
            if (silent > 1 and cell.source.count("\n") >= 8 and "code-fold" not in directives
                    and not is_needed(cell.source, code[k + 1:])):
                directives["code-fold"], shown["code_prompt_show"] = "", f"More checks ({checks})"
        tags = {"echo": "remove-input", "export": "hide-input", "exporti": "hide-input",
                "code-fold": "hide-cell"}
        cell.metadata["tags"] = [tag for name, tag in tags.items() if name in directives]
        if pictures := [out["data"]["image/png"] for out in cell.outputs
                        if "image/png" in out.get("data", {})]:
            shown["image"] = {"alt": directives.get("fig-alt", ""),
                              "width": shown_width(pictures[0]),
                              "classes": "photographs" if "photographs" in directives else "drawn"}
            if caption := CAPTION.match(after.source):
                shown["figure"] = {"caption": caption[1]}
                after.source = after.source[caption.end():].strip()
        if "tolerance" in directives:
            text = f"*On another machine: ± {directives['tolerance']}.*"
            cells.append(mk_cell(text, "markdown"))
        cell.metadata["mystnb"] = shown
    if docname == app.config.root_doc:
        cells.append(mk_cell(toctrees("\n\n".join(cell.source for cell in cells)), "markdown"))
    nb.cells = [cell for cell in cells if cell.source]
    content[0] = nb2str(nb)


def link_names(app, doctree, docname):
    """`doctree-resolved`: a backticked name of the package leads to its entry."""
    objects = app.env.domains["py"].objects
    names = {".".join(full.split(".")[k:]): full for full, kind in objects.items()
             for k in ((0,) if kind.objtype == "module" else (2, 1, 0))}
    for literal in list(doctree.findall(nodes.literal)):
        full = names.get(literal.astext().removeprefix("cka.").split("(")[0])
        if full and not isinstance(literal.parent, nodes.reference):
            at, anchor = objects[full].docname, objects[full].node_id
            literal.replace_self(make_refnode(app.builder, docname, at, anchor, literal.deepcopy()))


def setup(app):
    app.connect("source-read", read_notebook)
    app.connect("doctree-resolved", link_names)
