"""Write README.md, and its pictures in README_files/, from nbs/index.ipynb."""

import posixpath
import re
import shutil
from pathlib import Path

import nbformat
from fastcore.nbio import nb2str
from nbconvert import MarkdownExporter
from nbdev.process import NBProcessor
from nbdev.processors import clean_magics, filter_stream_, hide_, hide_line, strip_ansi

ROOT = Path(__file__).resolve().parent.parent
PICTURES = "README_files"
CONTENTS = re.compile(r"^### (.+)\n\n.+\n\n((?:\* .+\n)+)(?:\n(?=### ))?", re.M)  # a part
PROCESSORS = [hide_, hide_line, filter_stream_, clean_magics, strip_ansi]


def from_root(match):
    """A link relative to nbs/, made relative to the README's folder."""
    return match[1] + posixpath.normpath("nbs/" + match[2])


def in_brief(part):
    """A part of the book in one line; the site's front page says what each chapter is about."""
    return f"* {part[1]}: {', '.join(re.findall(r'^[*] (.+?[)]):', part[2], re.M))}\n"


def readme(index=ROOT / "nbs" / "index.ipynb"):
    """The README as text, and its pictures as {path: bytes}."""
    cells = NBProcessor(index, PROCESSORS, process=True).nb
    directives = [cell.directives_ for cell in cells.cells]
    nb = nbformat.reads(nb2str(cells), as_version=4)
    nb.metadata["language_info"] = {"name": "python"}  # the fences of the code cells
    for cell, directive in zip(nb.cells, directives):
        if cell.cell_type == "markdown":
            cell.source = re.sub(r'(\]\(|src=")(?!\w+:|[#/])([^)\s"]+)', from_root, cell.source)
        elif directive.get("echo") == "false":
            cell.metadata["transient"] = {"remove_source": True}
    text, resources = MarkdownExporter().from_notebook_node(nb, {"output_files_dir": PICTURES})

    def with_alt(match):  # the file's name holds the number of its cell
        return f"![{directives[int(match[2])].get('fig-alt', '')}]({match[1]})"

    text = re.sub(rf"!\[\w+\]\(({PICTURES}/output_(\d+)_\d+\.\w+)\)", with_alt, text)
    text = CONTENTS.sub(in_brief, text)
    text = re.sub(r"\n(\s*\n){2,}", "\n\n", text)  # one empty line is enough
    return text.strip() + "\n", resources["outputs"]


def main():
    """Write both, and leave no picture of an earlier README."""
    text, pictures = readme()
    shutil.rmtree(ROOT / PICTURES, ignore_errors=True)
    for name, data in pictures.items():
        (ROOT / PICTURES).mkdir(exist_ok=True)
        (ROOT / name).write_bytes(data)
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
