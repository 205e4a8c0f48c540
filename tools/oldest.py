"""Print settings.ini's requirements at their oldest versions, for `pip install -r`.

The extras that a chapter asks for come too: `pip install "cka_nb[timm,hf,onnx]"`.
"""

from configparser import ConfigParser

config = ConfigParser(interpolation=None)
config.read("settings.ini", encoding="utf-8")
extras = config["extras"]
needs = [config["package"]["requirements"], extras["timm"], extras["hf"], extras["onnx"]]
for need in " ".join(needs).split():
    package, semicolon, marker = need.partition(";")
    name, _, version = package.partition(">=")
    print((f"{name}=={version}.*" if version else name) + semicolon + marker)
