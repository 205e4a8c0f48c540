"""Print settings.ini's requirements at their oldest versions, one per line, for `pip install -r`."""

from configparser import ConfigParser

config = ConfigParser(interpolation=None)
config.read("settings.ini", encoding="utf-8")
for need in config["package"]["requirements"].split():
    name, _, version = need.partition(">=")
    print(f"{name}=={version}.*" if version else name)
