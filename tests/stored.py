"""Do a notebook's stored outputs agree with those of a new run?

Text must be the same, up to spacing. A cell whose numbers depend on PyTorch's version and on the
machine says by how much they may differ: `#| tolerance: 0.02` (97.1 % then is 0.971). Progress
bars, on the error stream, do not count; of a picture its presence does.
"""

import re

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?:\s?%)?")
TOLERANCE = re.compile(r"^#\|\s*tolerance:\s*(\S+)", re.M)


def outputs(cell):
    """(text, number of pictures) of a code cell."""
    text, pictures = "", 0
    for out in cell.get("outputs", []):
        data = out.get("data", {})
        pictures += "image/png" in data
        if out.get("name") == "stderr" or "image/png" in data:
            continue
        parts = [out.get("text", ""), *(data[kind] for kind in sorted(data) if kind[:5] == "text/")]
        text += "\n".join("".join(part) for part in parts)
    return text, pictures


def near(was, now, tolerance):
    """Two printed numbers, equal to within the tolerance."""
    a, b = (float(text.rstrip(" %").replace(",", "")) for text in (was, now))
    return abs(a - b) <= tolerance * (100 if "%" in was else 1) * (1 + 1e-9)


def differences(stored, new):
    """One line for each code cell whose stored outputs are not those of the new run."""
    found = []
    for k, (before, after) in enumerate(zip(stored["cells"], new["cells"], strict=True)):
        if before["cell_type"] != "code":
            continue
        match = TOLERANCE.search("".join(before["source"]))
        (was, pictures), (now, pictures_now) = outputs(before), outputs(after)
        words = [NUMBER.sub("0", text).split() for text in (was, now)]
        tolerance = float(match[1]) if match else 0
        close = all(near(a, b, tolerance) for a, b in zip(NUMBER.findall(was), NUMBER.findall(now)))
        if pictures != pictures_now or words[0] != words[1] or not close:
            found.append(f"cell {k}: stored {was!r} and {pictures} pictures, "
                         f"now {now!r} and {pictures_now}")
    return found
