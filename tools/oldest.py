"""Print settings.ini's requirements at their oldest versions, for `pip install -r`.

The extras that a chapter asks for come too.
"""

from configparser import ConfigParser

from colab import EXTRAS

config = ConfigParser(interpolation=None)
config.read("settings.ini", encoding="utf-8")
extras = dict.fromkeys(",".join(EXTRAS.values()).split(","))  # each once
needs = [config["package"]["requirements"], *(config["extras"][name] for name in extras)]
for need in " ".join(needs).split():
    package, semicolon, marker = need.partition(";")
    name, _, version = package.partition(">=")
    print((f"{name}=={version}.*" if version else name) + semicolon + marker)
