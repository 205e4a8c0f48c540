"""`cka_nb benchmark --device cuda`, in miniature on the simulated card: ready for a real one."""

import importlib
import json
from contextlib import ExitStack

import card as simulation
import pytest
import torch
from card import simulated_card

from cka_nb import costs, memory
from cka_nb.classes import LabelSpace
from cka_nb.cli import main
from cka_nb.data import Unlabelled
from cka_nb.objective import ContrastiveAmalgamation

if simulation.skip_reason():
    pytest.skip(simulation.skip_reason(), allow_module_level=True)

ours = importlib.import_module("cka_nb.benchmark")  # beside it there is a function of the name


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the command writes, all of it made in this process, which has the card."""
    out = tmp_path_factory.mktemp("card")
    with simulated_card(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "in_fresh_process",
                      lambda module, name, *given: getattr(memory, name)(*given))
        ours.benchmark(out, 1, True, "cuda")
    return json.loads((out / "benchmark.json").read_text())


def test_all_that_a_gpu_owes_is_made(made):
    tables = made["tables"]
    assert list(tables) == ["agreement", "step", "options", "contrast", "size"]
    assert not made["failed"] and not made["left_out"] and made["device"].startswith("cuda")
    assert made["machine"].startswith("Simulated card (capability 8.0, 16 GiB)")
    assert {"CKA / KD", "CKA / networks"} <= tables["step"]["ratios"].keys()
    options = tables["options"]
    variants = {"fp32", "channels last", "half precision", "networks alone"}
    assert variants == options["seconds"].keys() == options["memory"].keys()
    assert options["images_per_second"].keys() == variants
    assert options["memory"]["half precision"] < .9 * options["memory"]["channels last"]
    for its in tables["size"]["rows"].values():
        assert its["MiB_on_card"] > 0 and its["seconds_before_steps"] > 0
    assert "half precision" in ours.lines_of(options)


def test_the_card_says_what_the_cpu_says(made):
    rows = made["tables"]["agreement"]["rows"]
    assert list(rows) == ["cpu, no", "cuda, no", "cuda, bf16", "cuda, fp16"]
    for name, its in rows.items():
        assert its["loss_difference"] <= (1e-2 if name.endswith("16") else 1e-4), name
        assert abs(its["joint"] - rows["cpu, no"]["joint"]) <= .05, name
        assert abs(its["owner"] - rows["cpu, no"]["owner"]) <= .05, name
        if name != "cpu, no":
            assert 0 < its["waits_per_step"] <= 2, name
        if name.endswith("16"):
            assert its["loss_difference"] > 1e-5, "it was not computed in half precision"


def test_a_step_copies_what_a_run_copies_and_waits_for_its_loss_alone():
    setting = costs.SMALL
    with simulated_card() as card, ExitStack() as until:
        device = torch.device("cuda")
        teachers = costs.some_teachers(2, setting, device)
        images = Unlabelled(costs.some_images(32, setting["size"]))
        step = until.enter_context(costs.step_of(
            ContrastiveAmalgamation(), lambda x, index_b: costs.ask(teachers, x),
            LabelSpace(teachers), [64, 64], images, setting, device))
        step()
        card.clear()
        step(), step()
        assert card.waited == 2, card.table()
        copies = {at: n for (kind, _, at), n in card.copies.items() if kind == "H2D unblocked"}
        assert sum(copies.values()) == sum(card.copies.values()) == 6, card.copies
        # the batch's index; its beliefs, in one piece; the columns of the teachers' classes
        assert [at.split()[-1] for at in copies] == ["<genexpr>", "of", "places_on"], copies


def test_waits_are_counted_from_the_warnings_of_torch():
    with simulated_card():
        x = torch.ones(2, device="cuda")

        def run(epochs):
            x.cpu(), x.cpu()  # once a run
            history = list(range(4 * epochs))
            for _ in history:
                x.sum().item(), x.max().item(), x.min().item()
            return None, history

        assert ours.waits_of(run, 3)[-1] == 3
        assert torch.cuda.get_sync_debug_mode() == 0


def test_a_part_without_memory_is_named_and_the_command_fails(tmp_path, capsys):
    with simulated_card(memory=3 * 2**20):
        arguments = ["benchmark", "--small", "--repeats", "1", "--out", str(tmp_path)]
        status = main([*arguments, "--device", "cuda", "--parts", "options", "contrast"])
    result = json.loads((tmp_path / "benchmark.json").read_text())
    assert status == 2 and list(result["tables"]) == ["contrast"]
    assert "CUDA out of memory" in result["failed"]["options"]
    assert "failed: options; the others are written" in capsys.readouterr().err


def test_what_would_take_too_long_is_left_out(tmp_path):
    result = ours.benchmark(tmp_path, 1, True, "cpu", ["options"], minutes=1)
    assert result["left_out"] == ["options"] and not result["tables"] and not result["failed"]
