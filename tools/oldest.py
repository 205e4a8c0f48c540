"""Print settings.ini's requirements at their oldest versions, for `pip install -r`."""

from configparser import ConfigParser

config = ConfigParser(interpolation=None)
config.read("settings.ini", encoding="utf-8")
for need in config["package"]["requirements"].split():
    package, semicolon, marker = need.partition(";")
    name, _, version = package.partition(">=")
    print((f"{name}=={version}.*" if version else name) + semicolon + marker)
