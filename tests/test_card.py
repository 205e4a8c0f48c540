"""The simulated card does what the other tests rely on."""

import copy
import multiprocessing
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import card as simulation
import pytest
import torch
from card import DEVICE, simulated_card
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

if simulation.skip_reason():
    pytest.skip(simulation.skip_reason(), allow_module_level=True)


@pytest.fixture
def card():
    with simulated_card() as its:
        yield its


def kinds(counter):
    """The kinds of waits, and how many there were of each."""
    found = Counter()
    for (kind, *_), n in counter.items():
        found[kind] += n
    return dict(found)


def seen(card, act):
    """The kinds of waits during one act."""
    card.clear()
    act()
    return kinds(card.waits)


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def test_tensors_say_that_they_are_on_the_card(card):
    x = torch.randn(4, 3, device="cuda")
    w = torch.randn(3, 2).to("cuda").requires_grad_()
    y = (x @ w).relu()
    y.sum().backward()
    for t in (x, w, y, w.grad, torch.ones(2).cuda(), x.new_tensor([1]), torch.zeros_like(x),
              torch.tensor([1], device="cuda"), torch.as_tensor([1.0], device=DEVICE)):
        assert t.device == DEVICE and t.is_cuda and t.get_device() == 0
        assert not t.is_cpu and not t.is_meta
    assert torch.equal(w.grad.cpu(), (x.cpu().T @ (y > 0).float().cpu()))
    assert x.type() == "torch.cuda.FloatTensor" and x[1:].storage_offset() == 3
    with torch.device("cuda"):
        assert nn.Linear(2, 2).weight.is_cuda
    assert card.calls["mm"] == 2


@pytest.mark.parametrize("wrong", [
    lambda x: x + torch.ones(4, 3),
    lambda x: torch.cat([x, torch.ones(1, 3)]),
    lambda x: torch.ones(4, 3)[x[:, 0].long().clamp(0, 3)],
    lambda x: x[0].index_add(0, torch.tensor([0]), x[0, :1]),
    lambda x: F.linear(torch.ones(4, 3), x),
    lambda x: F.cross_entropy(x, torch.zeros(4, dtype=torch.long)),
    lambda x: x.index_put_((torch.tensor([0, 1]),), torch.ones(2, 3)),
    lambda x: torch.rand(3, device="cuda", generator=torch.Generator()),
    lambda x: nn.Linear(3, 2)(x)])
def test_mixed_devices_raise(card, wrong):
    with pytest.raises(RuntimeError):
        wrong(torch.ones(4, 3, device="cuda"))


def test_scalars_of_the_cpu_may_stand_beside_tensors_of_the_card(card):
    x = torch.ones(2, device="cuda")
    assert (x + torch.tensor(1.0)).is_cuda and torch.where(x > 0, x, torch.tensor(0.0)).is_cuda
    with pytest.raises(TypeError, match="cpu"):
        x.numpy()


def test_a_tensor_changes_its_form_in_place(card):
    x = torch.arange(6.0).view(2, 3).to("cuda")
    assert x.t_().unsqueeze_(0).shape == (1, 3, 2) and (x + 1).shape == (1, 3, 2)
    assert x.squeeze_().tolist() == [[0, 3], [1, 4], [2, 5]] and x.stride() == (1, 3)
    y = torch.zeros(2, device="cuda")
    y.data = x
    assert y.shape == (3, 2) and torch.equal(y.cpu(), x.cpu())
    with pytest.raises(NotImplementedError):
        x.resize_(20)
    pictures = torch.ones(2, 3, 4, 4).to("cuda", memory_format=torch.channels_last)
    assert F.adaptive_avg_pool2d(pictures, 1).stride() == F.adaptive_avg_pool2d(
        pictures.cpu(), 1).stride()


def test_indexing_is_that_of_the_cpu(card):
    x = torch.arange(12.0).view(3, 4)
    y = x.to("cuda")
    for key in ([0, 2], (slice(None), [0, 2]), range(2), torch.tensor([1]).numpy(), (0, 1), ...,
                [True, False, True], []):
        assert torch.equal(y[key].cpu(), x[key])
    for its in (x, y):
        its[:, [1, 3]] += 1
        its[0] = 7
        its[its > 9] = 0
    assert torch.equal(y.cpu(), x)


def test_waits_of_the_host_are_counted_by_kind(card):
    x, spd = torch.rand(4, 3).to("cuda"), torch.eye(3).to("cuda")
    mask, there = x[:, 0] > 0, torch.tensor([0, 1], device="cuda")
    for act, its in (
            (lambda: x.sum().item(), {"item": 1}), (lambda: bool((x > 2).any()), {"item": 1}),
            (lambda: float(x[0, 0]), {"item": 1}), (lambda: x.tolist(), {"D2H": 1}),
            (lambda: x.cpu(), {"D2H": 1}), (lambda: x.to("cpu", torch.float64), {"D2H": 1}),
            (lambda: torch.ones(1).copy_(x[0, :1]), {"D2H": 1}),
            (lambda: f"{x[0, 0]:.2f}", {"item": 1}), (lambda: repr(x), {"D2H": 1}),
            (lambda: torch.ones(2).to("cuda"), {"H2D": 1}),
            (lambda: torch.tensor([1.0], device="cuda"), {"H2D": 1}),
            (lambda: x[:, [0, 1]], {"H2D": 1}), (lambda: x[torch.tensor([0, 1])], {"H2D index": 1}),
            (lambda: x.__setitem__(there, 1.0), {"H2D": 1}),
            (lambda: x.__setitem__(mask, spd[0]), {"nonzero": 1}),
            (lambda: x[mask], {"nonzero": 1}), (lambda: mask.nonzero(), {"nonzero": 1}),
            (lambda: x.masked_select(x > 0), {"nonzero": 1}),
            (lambda: there.unique(), {"nonzero": 1}), (lambda: there.bincount(), {"item": 1}),
            (lambda: x[:2].repeat_interleave(there + 1, 0), {"item": 1}),
            (lambda: torch.linalg.solve(spd, x.T), {"linalg": 1}),
            (lambda: torch.linalg.inv(spd), {"linalg": 1}),
            (lambda: torch.linalg.eigh(spd), {"linalg": 1}),
            (lambda: torch.linalg.cholesky(spd), {"linalg": 1}),
            (torch.cuda.synchronize, {"synchronize": 1}),
            (torch.accelerator.synchronize, {"synchronize": 1})):
        assert seen(card, act) == its
    for free in (lambda: x[there], lambda: x @ spd, lambda: x[:, 1:].sum(0), lambda: x[0] + 1,
                 lambda: torch.linalg.solve_ex(spd, x.T), lambda: x.fill_(0.5), lambda: x.float(),
                 lambda: x.masked_fill_(x > 0.5, 0), lambda: x.__setitem__(0, 1.0),
                 lambda: x.__setitem__(x > 2, 1.0), lambda: torch.zeros(2, device="cuda"),
                 lambda: x[:2].repeat_interleave(there + 1, 0, output_size=3)):
        assert seen(card, free) == {} and not card.waited


def test_waits_are_named_by_lines_of_the_package(card):
    code = "def inner(x):\n    return x.item()\n\ndef outer(x):\n    return inner(x)\n"
    its = {}
    exec(compile(code, "/some/where/cka_nb/part.py", "exec"), its)
    x = torch.ones((), device="cuda")
    card.clear()
    its["outer"](x)
    its["inner"](x)
    its["inner"](x)
    x.item()
    assert card.waits == {("item", "part.py:2 inner", "part.py:5 outer"): 1,
                          ("item", "part.py:2 inner", ""): 2, ("item", "?", ""): 1}
    assert card.waited == 4 and len(card.table().splitlines()) == 3
    first = card.table(per=2).splitlines()[0]
    assert first.split()[0] == "1.00" and "part.py:2 inner" in first


def test_autocast_follows_the_lists_of_cuda(card):
    x, w = torch.randn(4, 3, device="cuda"), torch.randn(3, 2, device="cuda")
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cuda", dtype):
            assert (x @ w).dtype == F.linear(x, w.T).dtype == dtype
            assert (x @ w).softmax(1).dtype == (x @ w).exp().dtype == torch.float32
            assert (x @ w).sum().dtype == F.layer_norm(x.to(dtype), (3,)).dtype == torch.float32
            assert torch.addcmul(x, x, x.to(dtype)).dtype == torch.float32
            assert torch.addcmul(*3 * [x.to(dtype)]).dtype == dtype
            assert (x @ w).relu().dtype == dtype and (x.double() @ w.double()).dtype == torch.double
            assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype == torch.float32  # of the CPU
        assert (x @ w).dtype == torch.float32
    half = x.half()
    card.clear()
    with torch.autocast("cuda", torch.float16):
        assert half.sum(0).dtype == torch.float32 and not card.calls["_to_copy"]
        assert half.sum(0, dtype=torch.float16).dtype == torch.float16
        x @ w
        torch.addcmul(x, x, half)
    assert card.casts["matmul", "LOWER_PRECISION_FP"] and card.casts["addcmul", "PROMOTE"]


def test_a_real_grad_scaler_steps_a_fused_optimiser(card):
    torch.manual_seed(0)
    net, x = mlp().to("cuda"), torch.randn(32, 8, device="cuda")
    target = torch.randint(0, 4, (32,), device="cuda")
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.01, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    losses = []
    for step in range(30):
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = F.cross_entropy(net(x), target)
        scaler.scale(loss * (float("inf") if step == 5 else 1)).backward()
        before = net[0].weight.detach().clone()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        scaler.step(optimiser)
        scaler.update()
        assert torch.equal(before, net[0].weight) == (step == 5)
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2 and scaler.get_scale() == 2.0**15
    assert card.calls["_fused_adamw_"] and optimiser.state[net[0].weight]["exp_avg"].is_cuda


def test_to_understands_all_its_forms(card):
    x, here = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
    for args, kwargs in (((), {"copy": True}), (("cuda", None, False, True), {}),
                         ((torch.float32, False, True), {}), ((x, False, True), {}),
                         ((), {"tensor": x, "copy": True}), ((torch.float16,), {}),
                         ((), {"device": "cuda", "dtype": torch.float16})):
        assert x.to(*args, **kwargs) is not x and x.to(*args, **kwargs).is_cuda
        assert here.to(*args, **kwargs).is_cuda == (args[:1] == (x,) or "cuda" in args or bool(
            {"tensor", "device"} & {*kwargs}))
    for args in ((x,), ("cuda",), (DEVICE, torch.float32), (torch.float32,), ()):
        assert x.to(*args) is x
    assert x.to(here).device.type == "cpu" and here.to(x.half()).dtype == torch.float16
    picture = torch.ones(1, 2, 3, 3).to("cuda", memory_format=torch.channels_last)
    assert picture.is_contiguous(memory_format=torch.channels_last)
    assert picture.elem.is_contiguous(memory_format=torch.channels_last)


def test_a_module_moves_and_keeps_its_parameters(card):
    net = mlp()
    first = net[0].weight
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    before = first.detach().clone()
    assert net.to("cuda")[0].weight is first and first.is_cuda and isinstance(first, nn.Parameter)
    assert all(t.is_cuda for t in net.state_dict().values())
    net(torch.ones(2, 8, device="cuda")).sum().backward()
    optimiser.step()
    twin = copy.deepcopy(net)
    assert isinstance(twin[0].weight, nn.Parameter) and twin[0].weight.is_cuda
    assert torch.equal(twin[3].bias.grad, net[3].bias.grad) and twin[3].bias.requires_grad
    assert twin[0].weight.data_ptr() != net[0].weight.data_ptr() != 0
    with torch.inference_mode():
        assert nn.Linear(2, 2).to("cuda").weight.is_cuda
    home = net.to("cpu")[0].weight
    assert home is first and home.device.type == "cpu" and home.shape == before.shape


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_cannot_use_the_card_of_its_parent(card):
    fork = multiprocessing.get_context("fork")
    sender, receiver = fork.Queue(), fork.Queue()

    def child(queue):
        try:
            torch.manual_seed(0)
            queue.put(torch.ones(1, device="cuda").item())
        except RuntimeError as error:
            queue.put(str(error))

    def said(queue):
        process = fork.Process(target=child, args=(queue,))
        process.start()
        its = queue.get(timeout=20)
        process.join()
        return its

    assert said(sender) == 1.0  # the parent has not touched the card
    torch.ones(1, device="cuda")
    assert "Cannot re-initialize CUDA in forked subprocess" in said(receiver)


def test_threads_see_the_card_and_their_waits_are_kept_apart(card):
    x = torch.ones(2, 2, device="cuda")

    def work(i):
        with torch.autocast("cuda", torch.bfloat16):
            return (torch.full((2, 2), i).to("cuda").float() @ x).sum().item()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(4))) == [0, 8, 16, 24]
    its = []
    class Own(threading.Thread):
        def run(self):
            its.append(x.cpu())
    thread = Own()
    thread.start()
    thread.join()
    assert torch.equal(its[0], torch.ones(2, 2))
    assert kinds(card.elsewhere) == {"item": 4, "H2D": 4, "D2H": 1} and not card.waited


def test_a_thread_may_outlive_the_card():
    with ThreadPoolExecutor(1) as pool:
        with simulated_card():
            assert pool.submit(lambda: torch.ones(1, device="cuda").item()).result() == 1
        assert pool.submit(lambda: len(torch.rand(3, device="cpu"))).result() == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_pins_in_its_thread(card, workers):
    torch.ones(1, device="cuda")
    data = TensorDataset(torch.arange(12).view(6, 2))
    for (batch,) in DataLoader(data, 3, pin_memory=True, num_workers=workers):
        assert batch.is_pinned()
        batch.to("cuda", non_blocking=True)
    assert kinds(card.copies) == {"H2D unblocked": 2} and not card.waited


def test_pinned_memory_is_known_by_its_storage(card):
    x = torch.arange(48, dtype=torch.uint8).view(4, 12)
    assert not x.is_pinned() and not x.to("cuda").is_pinned()
    for p in (x.pin_memory(), torch.empty(4, 12, dtype=torch.uint8, pin_memory=True).copy_(x),
              torch.tensor(x.tolist(), dtype=torch.uint8, pin_memory=True)):
        for view in (p, p[1:3], p.reshape(-1), p.view(torch.int32), p.detach(), p[0]):
            assert view.is_pinned() and view.pin_memory() is view
            assert seen(card, lambda view=view: view.to("cuda", non_blocking=True)) == {}
            assert kinds(card.copies) == {"H2D unblocked": 1}
        assert not (p + 1).is_pinned() and not p.clone().is_pinned()
        assert torch.equal(p.to("cuda", non_blocking=True).cpu(), x)
        # type or order is changed on the host first, in pageable memory
        for moved in (p.T[1:], p[:, ::2]):
            assert seen(card, lambda: moved.cuda(non_blocking=True)) == {"H2D pageable": 1}
        assert seen(card, lambda: p.to("cuda", torch.float, True)) == {"H2D pageable": 1}
        assert seen(card, lambda: p.to("cuda")) == {"H2D": 1}
    assert seen(card, lambda: x.to("cuda", non_blocking=True)) == {"H2D pageable": 1}
    y = x.cuda()
    assert seen(card, lambda: p.copy_(y, non_blocking=True)) == {}
    assert kinds(card.copies) == {"D2H unblocked": 1}
    assert seen(card, lambda: x.copy_(y, non_blocking=True)) == {"D2H pageable": 1}
    assert seen(card, lambda: p.copy_(y)) == {"D2H": 1}
    assert seen(card, lambda: y.copy_(p, non_blocking=True)) == {}
    assert y.to("cpu", non_blocking=True).is_pinned()  # torch pins this one by itself
    with pytest.raises(RuntimeError, match="pin"):
        y.pin_memory()


def test_memory_in_use_is_counted_by_storage(card):
    assert card.live == 0 == torch.cuda.memory_allocated()
    x = torch.zeros(256, device="cuda")
    views = x[:10], x.view(16, 16), x.detach()
    assert card.live == card.peak == 1024 == torch.cuda.memory_allocated()
    assert torch.cuda.mem_get_info() == (2**34 - 1024, 2**34)
    assert torch.cuda.get_device_properties(0).total_memory == 2**34
    y = x + 1
    del x, y
    assert card.live == 1024 and torch.cuda.max_memory_allocated("cuda") == card.peak == 2048
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == 1024
    del views
    assert card.live == 0 == torch.cuda.memory_allocated(0)


def test_tensors_saved_for_gradients_stay_in_memory(card):
    net, x = mlp().to("cuda"), torch.randn(64, 8, device="cuda")
    net(x).sum().backward()
    before = card.live
    loss = net(x).sum()
    assert card.live >= before + 2 * 64 * 16 * 4  # the inputs of batch norm and of the last layer
    loss.backward()
    del loss
    assert card.live == before
    with torch.no_grad():
        net(x)
    assert card.live == before


def test_memory_is_exhausted():
    with simulated_card(memory=4000) as card:
        x = torch.zeros(900, device="cuda")
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory. Tried to allocate"):
            x + 1
        x += 1
        del x
        assert torch.ones(900, device="cuda").is_cuda and card.peak == 3600


def test_an_operation_fails_when_it_is_asked_to(card):
    x = torch.ones(2, 2, device="cuda")
    card.fail_at("mm", 2)
    x @ x
    x + x
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        x @ x
    card.fail_at(None, 2)
    x.add_(1), x[0], x * 2
    with pytest.raises(torch.OutOfMemoryError):
        x * 3
    card.fail_at("mm")
    x.requires_grad_()
    (x * x).sum().backward()
    with pytest.raises(torch.OutOfMemoryError):
        x @ x
    assert (x @ x).is_cuda


def test_a_card_without_float64():
    with simulated_card(float64=False):
        x = torch.ones(2, device="cuda")
        for wrong in (x.double, lambda: torch.ones(1, dtype=torch.double).to("cuda"),
                      lambda: torch.zeros(2, device="cuda", dtype=torch.double),
                      lambda: x.sum(dtype=torch.double)):
            with pytest.raises(TypeError, match="doesn't support float64"):
                wrong()
        assert (x * 0.5 + 2).dtype == torch.float32 and x.cpu().double().sum() == 2
        x[0] = 0.1
    with simulated_card():
        assert torch.ones(2, device="cuda").double().dtype == torch.double


def test_products_have_other_last_bits_each_time():
    with simulated_card(jitter=1e-6):
        torch.manual_seed(0)
        x = torch.randn(8, 8, device="cuda")
        picture, kernel = torch.ones(1, 1, 8, 8, device="cuda"), torch.ones(2, 1, 3, 3).cuda()
        for act in (lambda: x @ x, lambda: torch.addmm(x, x, x), lambda: x[None].bmm(x[None]),
                    lambda: torch.baddbmm(x[None], x[None], x[None]),
                    lambda: F.conv2d(picture, kernel)):
            one, two = act(), act()
            assert not torch.equal(one, two)
            torch.testing.assert_close(one.cpu(), two.cpu(), rtol=2e-5, atol=0)
        assert torch.equal(x + x, x + x)
        after = torch.rand(1), torch.rand(1, device="cuda").cpu()
    with simulated_card():
        torch.manual_seed(0)
        x = torch.randn(8, 8, device="cuda")
        assert torch.equal(x @ x, x @ x)
        assert after == (torch.rand(1), torch.rand(1, device="cuda").cpu())


def test_the_card_has_random_numbers_of_its_own(card):
    torch.manual_seed(1)
    here, there = torch.rand(3), torch.rand(3, device="cuda")
    assert torch.cuda.initial_seed() == 1
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3, device="cuda"), there) and torch.equal(torch.rand(3), here)
    state, states = torch.cuda.get_rng_state(), torch.cuda.get_rng_state_all()
    more = F.dropout(torch.ones(64, device="cuda"))
    torch.cuda.set_rng_state(state)
    assert torch.equal(F.dropout(torch.ones(64, device="cuda")), more)
    torch.cuda.set_rng_state_all(states)
    with torch.random.fork_rng():
        torch.cuda.manual_seed(5)
        torch.rand(3)
    assert torch.equal(F.dropout(torch.ones(64, device="cuda")), more)


def test_seeds_are_queued_until_the_card_is_initialised():
    with simulated_card():
        assert not torch.cuda.is_initialized()
        torch.manual_seed(1)
        torch.cuda.manual_seed_all(2)
        torch.ones(3).sum()
        assert not torch.cuda.is_initialized()
        two = torch.rand(3, device="cuda")
        assert torch.cuda.is_initialized() and torch.cuda.initial_seed() == 2
    for start in (torch.cuda.init, lambda: torch.ones(1, device="cuda"), torch.cuda.get_rng_state):
        with simulated_card():
            torch.manual_seed(2)
            start()
            assert torch.cuda.is_initialized() and torch.equal(torch.rand(3, device="cuda"), two)
    with simulated_card():
        torch.manual_seed(2)
        with torch.random.fork_rng(devices=[]):  # so the user's seed is lost
            torch.manual_seed(3)
        assert torch.cuda.initial_seed() == 3
    with simulated_card():
        torch.manual_seed(2)
        with torch.random.fork_rng():
            torch.manual_seed(3)
        assert torch.equal(torch.rand(3, device="cuda"), two)


def test_what_torch_says_of_the_card():
    with simulated_card(capability=(7, 5)):
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1
        assert torch.accelerator.is_available() and torch.accelerator.device_count() == 1
        assert torch.accelerator.current_accelerator() == torch.device("cuda")
        assert torch.accelerator.current_device_index() == 0 == torch.cuda.current_device()
        assert torch.cuda.get_device_capability("cuda") == (7, 5)
        assert torch.cuda.get_device_name() == "Simulated card"
        torch.cuda.set_device(0)
        assert not torch.cuda.is_current_stream_capturing()
        torch.cuda.empty_cache()


def test_torch_warns_of_waits_when_it_is_asked_to(card):
    x = torch.ones(2, device="cuda")
    torch.cuda.set_sync_debug_mode("warn")
    assert torch.cuda.get_sync_debug_mode() == 1
    with pytest.warns(UserWarning, match="called a synchronizing CUDA operation"):
        x.sum().item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x + 1
        torch.ones(2).pin_memory().to("cuda", non_blocking=True)
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchronizing"):
        x.cpu()
    torch.cuda.set_sync_debug_mode(0)
    x.cpu()


def test_another_torch_is_a_reason_to_skip_but_a_fault_is_not(monkeypatch):
    monkeypatch.setattr(simulation, "_compute", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulation.skip_reason.__wrapped__()
    monkeypatch.setattr(simulation, "TRIED", "1.0.")
    assert "lacks something private" in simulation.skip_reason.__wrapped__()


def test_everything_is_as_it_was_afterwards():
    names = ((torch.cuda, "is_available"), (torch.cuda, "_lazy_init"), (torch._C, "_cuda_init"),
             (threading.Thread, "start"), (torch.Tensor, "pin_memory"))
    before = [getattr(*name, None) for name in names], torch.cuda.is_available()
    seeds = torch.cuda._lazy_seed_tracker.get_calls()
    with simulated_card():
        torch.manual_seed(7)
    assert torch.cuda._lazy_seed_tracker.get_calls() == seeds
    with simulated_card() as outer:
        x = torch.ones(2, device="cuda")
        with simulated_card() as inner:
            torch.ones(2, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            assert (x[None] @ x[:, None]).dtype == torch.bfloat16
        assert outer.live == 8 and inner.calls["ones"] == 1
    assert before == ([getattr(*name, None) for name in names], torch.cuda.is_available())
    assert not torch.cuda.is_initialized()
    with pytest.raises(RuntimeError, match="outside"):
        x + 1


def test_a_module_moves_while_a_graph_holds_it():
    net = torch.nn.Linear(3, 2)
    first = net.weight
    with simulated_card():
        held = net(torch.rand(4, 3)).sum()
        assert net.to("cuda")(torch.rand(4, 3, device="cuda")).is_cuda and held.requires_grad
        assert net.weight is first and first.is_cuda
        held = net(torch.rand(4, 3, device="cuda")).sum()
        net.to("cpu")
    assert net.weight is first and not first.is_cuda and net(torch.rand(4, 3)).requires_grad
