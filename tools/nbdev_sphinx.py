"""Sphinx extension: notebooks are read as nbdev reads them, with an API entry for each export."""

import ast
import importlib
import json
import re

from docutils import nodes
from fastcore.docments import docments
from fastcore.nbio import dict2nb, mk_cell, nb2str
from nbdev.process import NBProcessor
from readme import PROCESSORS
from sphinx import addnodes
from sphinx.util.nodes import make_refnode

CAPTION = re.compile(r"\*Figure: (.+?)\*\s*(?=\n\n|$)", re.S)  # opens the cell after the figure's
DIFFERS = "*On another machine or with other versions these numbers may differ by {}.*"
FIELD = re.compile(r"^ +(\w+): ([^#\n]+?) *# (.+)$", re.M)  # of a NamedTuple
MARKUP = re.compile(r"([*<_$])(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of backticks


def entry(node, obj, source, owner="", fence="::::"):
    """An entry of Sphinx's Python domain: signature, docstring, parameters, result, methods."""
    is_class = isinstance(node, ast.ClassDef)
    members = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)} if is_class else {}
    decorators = {ast.unparse(d) for d in node.decorator_list}
    kind = "class" if is_class else "method" if owner else "function"
    kind, fields, header = "property" if "property" in decorators else kind, [], ""
    if is_class and "__init__" not in members:  # a NamedTuple
        fields = FIELD.findall(ast.get_source_segment(source, node))
        header = f"({', '.join(name for name, *_ in fields)})"
    elif kind != "property":
        call, comments = members.get("__init__", node), docments(obj)
        arguments = [a for a in ast.walk(call.args) if isinstance(a, ast.arg)]
        types = {a.arg: ast.unparse(a.annotation) for a in arguments if a.annotation}
        fields = [(name, types.get(name, ""), text or "") for name, text in comments.items()]
        for argument in arguments:
            argument.annotation = None  # the signature has names and defaults
        returns = f" -> {ast.unparse(call.returns)}" if call.returns else ""
        header = f"({re.sub(r'^(self|cls)(, )?', '', ast.unparse(call.args))}){returns}"
    lines = [f":returns: {text}" if name == "return" else f":param {type_} {name}: {text}"
             for name, type_, text in fields if type_ or text]
    inner = [entry(m, getattr(obj, name), source, f"{node.name}.", ":::")
             for name, m in members.items() if name[0] != "_" and ast.get_docstring(m)]
    header = f"{fence}{{py:{kind}}} {owner}{node.name}{header}"
    header += "\n:classmethod:" if "classmethod" in decorators else ""
    doc = MARKUP.sub(r"\\\1", ast.get_docstring(node) or "")
    return "\n\n".join([header, doc, "\n".join(lines), *inner, fence])


def read_notebook(app, docname, content):
    """`source-read`: what nbdev's directives say, put as MyST-NB understands it."""
    nb = NBProcessor(nb=dict2nb(json.loads(content[0])), procs=PROCESSORS, process=True).nb
    cells, module = [], None
    for cell, after in zip(nb.cells, [*nb.cells[1:], mk_cell("", "markdown")]):
        directives, shown = cell.directives_, {}
        cells.append(cell)
        if cell.cell_type == "markdown":
            continue
        if "default_exp" in directives:
            module = importlib.import_module(f"cka_nb.{directives['default_exp']}")
            cells.append(mk_cell(f":::{{py:module}} {module.__name__}\n:::", "markdown"))
        if directives.keys() & {"export", "exports"}:
            public = [node for node in ast.parse(cell.source).body if isinstance(
                node, (ast.FunctionDef, ast.ClassDef)) and node.name[0] != "_"]
            text = "\n\n".join(entry(n, getattr(module, n.name), cell.source) for n in public)
            cells.insert(len(cells) - ("export" in directives), mk_cell(text, "markdown"))
        for name, tag, prompt in (("echo", "remove-input", ""), ("export", "hide-input", "Source"),
                                  ("code-fold", "hide-input", "Answers")):
            if name in directives:
                cell.metadata["tags"], shown["code_prompt_show"] = [tag], prompt
        if any("image/png" in out.get("data", {}) for out in cell.outputs):
            shown["image"] = {"alt": directives.get("fig-alt", "")}
            if caption := CAPTION.match(after.source):
                shown["figure"] = {"caption": caption[1]}
                after.source = after.source[caption.end():].strip()
        if "tolerance" in directives:
            cells.append(mk_cell(DIFFERS.format(directives["tolerance"]), "markdown"))
        cell.metadata["mystnb"] = shown
    if docname == app.config.root_doc:
        cells.append(mk_cell("```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```", "markdown"))
    nb.cells = [cell for cell in cells if cell.source]
    content[0] = nb2str(nb)


def link_names(app, doctree, docname):
    """`doctree-resolved`: a backticked name of the package leads to its entry."""
    objects = app.env.domains["py"].objects
    names = {".".join(full.split(".")[k:]): full for full in objects for k in (2, 1, 0)}
    for literal in list(doctree.findall(nodes.literal)):
        full = names.get(literal.astext().removeprefix("cka.").split("(")[0])
        if full and not isinstance(literal.parent, (nodes.reference, addnodes.desc_signature)):
            at, anchor = objects[full].docname, objects[full].node_id
            literal.replace_self(make_refnode(app.builder, docname, at, anchor, literal.deepcopy()))


def setup(app):
    app.connect("source-read", read_notebook)
    app.connect("doctree-resolved", link_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
