"""A large set of images in little memory, of the host and of a simulated card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from card import skip_reason

GIB = 2**30
CODE = """
import json, sys
from card import simulated_card
from cka_nb.memory import size_of
with simulated_card(memory=int(sys.argv[2])) as card: # more raises an error
    found = size_of(int(sys.argv[1]), [3, 32, 32], 100, 512, 10, "cuda")
    print(json.dumps(found | dict(peak=card.peak, called=card.calls.total())))
"""


@pytest.mark.skipif(bool(skip_reason()), reason=str(skip_reason()))
@pytest.mark.parametrize("count, limit", [
    # with a matrix of all pairs in fp32, 549 MiB, it would be more, there and here
    (12_000, GIB // 2),
    *(pytest.param(count, 2 * GIB, marks=pytest.mark.slow) for count in (60_000, 1_000_000))])
def test_ownership_and_ten_steps_in_little_memory(count, limit):
    """Two teachers of 512 features and 100 classes, images of 3 x 32 x 32, one view.

    The limit is the card's memory; the host may take a gibibyte beside the images, or two.
    """
    here = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", CODE, str(count), str(limit)],
                         capture_output=True, text=True, env=os.environ | {
                             "PYTHONPATH": f"{here}:{here.parent}", "OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    print(found)
    assert found["MiB_above_images"] < max(GIB, limit) / 2**20
    assert 0 < found["peak"] <= limit and found["called"] > count / 64
    assert found["peak"] < count * 3 * 32 * 32 or count < 500_000, "the images are not held there"
