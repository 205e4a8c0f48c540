"""Write the first cell of every chapter, which installs the package on Colab, from settings.ini."""

import json
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {"49_deployment": "onnx", "58_cli": "onnx", "60_own_teachers": "timm,hf,onnx"}
CONDITION = """#| hide
import importlib.util, os
if os.path.isdir('/content') and importlib.util.find_spec('{name}') is None:  # on Colab
"""
INSTALL = CONDITION + """\
    %pip install -q "{name}{extras} @ git+{repository}@v{version}\""""
STOP = CONDITION + """\
    raise ModuleNotFoundError(
        'There is no public address yet from which {name} may be installed. Run `make dist` in the '
        'project on your computer, upload the wheel from its dist/ into /content, run `%pip install '
        '"/content/{name}-{version}-py3-none-any.whl{extras}"`, then this cell again.')"""


def settings():
    """What settings.ini says."""
    config = ConfigParser(interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config


def first_cell(package, extras=""):
    """Its source: installs the version from the repository, or stops while there is none."""
    cell = INSTALL if package["repository"] else STOP
    return cell.format_map({**package, "extras": f"[{extras}]" if extras else ""})


def main():
    """Write the cells that differ; nothing else in a notebook changes."""
    package = settings()["package"]
    for path in sorted((ROOT / "nbs").glob("*.ipynb")):
        nb = json.loads(path.read_text(encoding="utf-8"))
        cell = next(cell for cell in nb["cells"] if cell["cell_type"] == "code")
        wanted = first_cell(package, EXTRAS.get(path.stem, "")).splitlines(keepends=True)
        if "os.path.isdir('/content')" in "".join(cell["source"]) and cell["source"] != wanted:
            cell["source"] = wanted
            text = json.dumps(nb, sort_keys=True, indent=1, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
