# All metadata is read from settings.ini, so that nothing is stated twice.
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(interpolation=None)
config.read("settings.ini", encoding="utf-8")
package = config["package"]

setup(
    name=package["name"],
    version=package["version"],
    description=" ".join(package["description"].split()),
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=package["author"],
    license_expression=package["license"],
    python_requires=">=" + package["min_python"],
    packages=[package["lib_path"], "cka_nb.results"],
    package_dir={"cka_nb.results": "results"},  # the committed results travel with the wheel
    package_data={package["lib_path"]: ["py.typed", "*.mplstyle"], "cka_nb.results": ["*.json"]},
    install_requires=package["requirements"].split(),
    extras_require={name: needs.split() for name, needs in config["extras"].items()},
    entry_points={"console_scripts": [package["console_script"]]},
)
