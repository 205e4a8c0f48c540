"""Do a notebook's stored outputs agree with those of a new run?

Text must be the same, up to spacing and the last printed digit of a number; a cell whose numbers
depend on PyTorch's version and the machine says by how much: `#| tolerance: 0.02`. Of a picture
only its presence counts.
"""

import re

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?%?")
TOLERANCE = re.compile(r"^#\|\s*tolerance:\s*(\S+)", re.M)


def outputs(cell):
    """(text, number of pictures) of a code cell."""
    text, pictures = "", 0
    for out in cell.get("outputs", []):
        if out.get("name") == "stderr":  # progress bars
            continue
        data = out.get("data", {})
        pictures += "image/png" in data
        for part in (out.get("text", ""), "" if "image/png" in data else data.get("text/plain", "")):
            text += "".join(part)
    return text, pictures


def near(ours, theirs, tolerance):
    """Are two printed numbers equal, to `tolerance` or to a unit of the last printed place?"""
    a, b = (float(text.rstrip("%").replace(",", "")) for text in (ours, theirs))
    mantissa, _, exponent = ours.rstrip("%").partition("e")
    places = len(mantissa.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - places) if places else 0
    scale = 100 if ours.endswith("%") else 1
    return abs(a - b) <= max(unit, tolerance * scale if places else 0) * (1 + 1e-9)


def differences(stored, new):
    """One line for each code cell whose stored outputs are not those of the new run."""
    found = []
    pairs = zip(stored["cells"], new["cells"], strict=True)
    for k, (before, after) in enumerate(pairs):
        if before["cell_type"] != "code":
            continue
        source = "".join(before["source"])
        tolerance = float(match[1]) if (match := TOLERANCE.search(source)) else 0
        (was, pictures), (now, pictures_now) = outputs(before), outputs(after)
        same = pictures == pictures_now and NUMBER.sub("0", was).split() == NUMBER.sub("0", now).split()
        if not same or not all(map(lambda a, b: near(a, b, tolerance),
                                   NUMBER.findall(was), NUMBER.findall(now))):
            found.append(f"cell {k}: stored {was!r} ({pictures} pictures), now {now!r} ({pictures_now})")
    return found
