"""A simulated CUDA device: a package is tested for mistakes with devices where there is no GPU.

    with simulated_card() as card:
        cka.amalgamate(teachers, student, images, device="cuda", epochs=1)
    print(card.table())  # the lines of the package at which the host waits, and how often

A tensor of the card is a subclass that wraps a tensor of the CPU, `elem`, which holds the numbers.
Its shell is a meta tensor with the dispatch keys of CUDA, so autograd needs no driver. A dispatch
mode computes every operation on the CPU, checks devices, counts waits and measures memory. A
function mode answers what C++ would answer from the shell. Threads that start inside the block
enter both modes. Python's side of `torch.cuda` stays real: only the C functions below it and a few
of its variables are replaced.

Simulated: devices, waits of the host, pinned memory, memory in use, an error when it is exhausted,
autocast, random numbers and their seeding, forked processes, the last bits of a product (`jitter`).
Not simulated: torch.compile, CUDA graphs, streams, events, NCCL, a second card, torch.Generator on
the card, cuDNN's recurrent networks, speed, memory inside an operation, rounding of CUDA, pickling.
Limits: `device="meta"` means the card inside the block. `resize_` and `set_` raise. A module that
has a live graph of autograd moves, but a backward through that graph no longer reaches it. With
`float64=False` a GradScaler fails, because torch lets it do without float64 only on a device of the
name "mps". Jitter below the precision of float16 leaves its products alone.
`set_sync_debug_mode("warn")` warns of every wait that is counted here; torch itself is silent at
`synchronize` and at copies of pageable memory.
"""

import functools
import os
import re
import sys
import threading
import warnings
from collections import Counter
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
import torch._dynamo  # noqa: F401  (while it is imported it looks for CUDA, and must find none)
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("cuda:0")
TRIED = "2.14."  # the torch whose private functions are known to be those used here
PACKAGE = "/cka_nb/"  # a wait is named by the lines of files whose path has this
aten = torch.ops.aten
_card = None  # the card of the innermost block

WAITS = {  # the host waits here, because it must know a number that is on the card
    **dict.fromkeys(("_local_scalar_dense", "equal", "bincount", "histc", "multinomial",
                     "repeat_interleave"), "item"),
    **dict.fromkeys(("nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
                     "unique_consecutive"), "nonzero"),
    **dict.fromkeys(("_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "_linalg_eigvals",
                     "linalg_eig", "linalg_qr"), "linalg")}
INDEXING = {"index", "index_put", "_index_put_impl", "_unsafe_index", "_unsafe_index_put"}
SCALARS = {"where", "masked_fill", "fill", "lerp", "index_fill", "addcmul", "addcdiv"}
LISTS = ("_foreach", "_amp_foreach", "_fused")  # these take scalars of the CPU beside lists
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward"}


class CardTensor(Tensor):
    """It says that it is on cuda:0; `elem`, on the CPU, holds the numbers."""

    @staticmethod
    def __new__(cls, elem):
        _card.hold(elem)
        shell = torch.empty_strided(elem.shape, elem.stride(), dtype=elem.dtype, device="meta")
        made = Tensor._make_subclass(cls, shell, False, dispatch_device=False,
                                     device_for_backend_keys=DEVICE)
        made.elem = elem
        return made

    def __init__(self, elem):
        pass

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_meta = is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self):
        if _card is not None: _card.wait("D2H")
        return f"{self.elem!r} on cuda:0"

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else object.__format__(self, spec)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            with torch.no_grad(): new = self.detach().clone()
            if isinstance(self, torch.nn.Parameter): new._is_param = True
            memo[id(self)] = new.requires_grad_(self.requires_grad)
            if self.grad is not None: new.grad = self.grad.__deepcopy__(memo)
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if _card is None:
            raise RuntimeError("a tensor of the simulated card is used outside its block")
        return _compute(func, args, dict(kwargs or {}))


class _Held:
    """The bytes of one storage of the card. It is an attribute of the storage and dies with it."""

    def __init__(self, card, size):
        self.card, self.size = card, size
        card.live += size
        card.peak = max(card.peak, card.live)

    def __del__(self):
        self.card.live -= self.size


class Card:
    """What happened on the card: waits of the host by kind and line, copies, operations, bytes."""

    def __init__(self, memory, float64, jitter):
        self.memory, self.float64, self.jitter = memory, float64, jitter
        self.waits, self.elsewhere, self.copies = Counter(), Counter(), Counter()
        self.calls, self.casts = Counter(), Counter()
        self.live = self.peak = self.debug = 0
        self.process, self.thread, self.lock = None, threading.get_ident(), threading.RLock()
        self.random, self.noise = torch.Generator(), torch.Generator().manual_seed(0)
        self.failing = None

    @property
    def waited(self):
        """How often the thread that opened the block waited; other threads are in `elsewhere`."""
        return self.waits.total()

    def clear(self):
        """Set the counters to nothing. Memory stays as it is."""
        for its in (self.waits, self.elsewhere, self.copies, self.calls, self.casts):
            its.clear()

    def table(self, per=1):
        """The waits of the main thread, the most frequent first; `per` divides the counts."""
        return "\n".join(f"{n / per:8.2f}  {kind:14} {at:44} <- {by}"
                         for (kind, at, by), n in self.waits.most_common())

    def fail_at(self, name=None, after=1):
        """Exhaust memory at the `after`-th next operation of this name, such as "addmm". With
        None, each operation counts that makes a new tensor."""
        self.failing = [name, after]

    def wait(self, kind):
        """Count a wait of the host at the line of the package where it is."""
        main = threading.get_ident() == self.thread
        with self.lock: (self.waits if main else self.elsewhere)[kind, *_lines()] += 1
        if self.debug == 1: warnings.warn("called a synchronizing CUDA operation", stacklevel=3)
        elif self.debug == 2: raise RuntimeError("called a synchronizing CUDA operation")

    def copied(self, kind, source, target, blocks):
        """Count a copy between host and card. CUDA copies bytes: a copy that must first change
        type or order on the host goes through pageable memory there."""
        host = source if kind == "H2D" else target
        straight = source.dtype == target.dtype and (
            host.is_contiguous() or source.stride() == target.stride())
        if blocks: self.wait(kind)
        elif straight and _is_pinned(host): self.copies[f"{kind} unblocked", *_lines()] += 1
        else: self.wait(f"{kind} pageable")

    def hold(self, elem):
        """Count the bytes of a tensor's storage, once, for as long as the storage lives."""
        if not self.float64 and elem.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework "
                            "doesn't support float64. Please use float32 instead.")
        storage = elem.untyped_storage()
        with self.lock:
            if not hasattr(storage, "held"):
                if self.live + storage.nbytes() > self.memory: self.exhausted(storage.nbytes())
                storage.held = _Held(self, storage.nbytes())

    def exhausted(self, size):
        """Raise what torch raises when memory is exhausted."""
        raise torch.OutOfMemoryError(
            f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total "
            f"capacity of {self.memory / 2**20:.2f} MiB of which "
            f"{(self.memory - self.live) / 2**20:.2f} MiB is free.")

    def called(self, func, name):
        """Count an operation on the card, which fails if `fail_at` says so."""
        with self.lock:
            self.calls[name] += 1
            if self.failing and self.failing[0] in (name, None):
                makes = any(r.alias_info is None and "Tensor" in str(r.type)
                            for r in func._schema.returns)
                self.failing[1] -= makes or self.failing[0] == name
                if self.failing[1] <= 0:
                    self.failing = None
                    self.exhausted(2**20)

    @contextmanager
    def drawing(self):
        """Let the CPU draw from the card's random numbers."""
        with self.lock:
            host = torch.default_generator.get_state()
            torch.default_generator.set_state(self.random.get_state())
            try: yield
            finally:
                self.random.set_state(torch.default_generator.get_state())
                torch.default_generator.set_state(host)

    def shaken(self, x):
        """The result of a product with other last bits."""
        if isinstance(x, Tensor) and x.is_floating_point():
            x *= 1 + self.jitter * torch.randn(x.shape, generator=self.noise)
        return x


def _lines():
    """The innermost line of the package on the stack, and the line that called it."""
    frame, at = sys._getframe(2), []
    while frame is not None and len(at) < 2:
        code = frame.f_code
        if PACKAGE in code.co_filename:
            at.append(f"{os.path.basename(code.co_filename)}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return (*(at or "?"), "")[:2]


def _is(x):
    return isinstance(x, CardTensor)


def _each(f, tree):
    if isinstance(tree, (list, tuple)): return type(tree)([_each(f, x) for x in tree])
    if isinstance(tree, dict): return {k: _each(f, x) for k, x in tree.items()}
    return f(tree)


def _tensors(tree):
    found = []
    _each(lambda x: found.append(x) if isinstance(x, Tensor) else None, tree)
    return found


def _on_card(device):
    """Whether a device is the card, which C++ takes for 'meta'."""
    return device is not None and torch.device(device).type in ("cuda", "meta")


def _check_devices(func, name, args, inputs):
    """Raise if an operation mixes devices, as torch does. A scalar of the CPU may stand beside."""
    on_cpu = [t for t in inputs if not _is(t)]
    if not on_cpu or len(on_cpu) == len(inputs) or name == "_has_compatible_shallow_copy_type":
        return
    name = name.removesuffix("_")
    if name in INDEXING:
        if not _is(args[0]):
            raise RuntimeError("indices should be either on cpu or on the same device as the "
                               "indexed tensor (cpu)")
        value = args[2] if "put" in name else None
        if value is None or _is(value) or value.dim() == 0:
            for i in args[1]:
                if isinstance(i, Tensor) and not _is(i): _card.wait("H2D index")
            return
    elif (torch.Tag.pointwise in func.tags or name in SCALARS or name.startswith(LISTS)) and all(
            t.dim() == 0 for t in on_cpu):
        return
    its = ", ".join(f"{t.device}{tuple(t.shape)}" for t in inputs)
    raise RuntimeError("Expected all tensors to be on the same device, but found at least two "
                       f"devices, cuda:0 and cpu! (in {func}: {its})")


def _count_waits(name, args, kwargs):
    """Count the waits of an operation whose shape or error depends on numbers of the card."""
    kind = WAITS.get(name)
    if kind and kwargs.get("output_size") is None:  # repeat_interleave need not ask then
        _card.wait(kind)
    if name.removesuffix("_") in INDEXING:
        keys = [i for i in args[1] if isinstance(i, Tensor)]
        masks = [i for i in keys if _is(i) and i.dtype in (torch.bool, torch.uint8)]
        if len(args) > 2 and not _is(args[2]):  # a number of the CPU is written
            if len(keys) == len(masks) == 1 and not any(args[3:]): return  # by masked_fill_
            _card.wait("H2D")
        for _ in masks: _card.wait("nonzero")


def _compute(func, args, kwargs):
    """The result of an operation, computed on the CPU."""
    name, card, device = func._schema.name.removeprefix("aten::"), _card, kwargs.get("device")
    inputs = _tensors((args, kwargs))
    wrappers = {id(t.elem): t for t in inputs if _is(t)}
    source = args[name == "copy_"] if name in ("_to_copy", "copy_") else None
    if name == "copy_": on_card = _is(args[0])
    else: on_card = _on_card(device) if device is not None else bool(wrappers)
    if wrappers or on_card:
        torch.cuda._lazy_init()  # this raises in a forked process
        if name in ("resize_", "resize_as_", "set_"):
            raise NotImplementedError(f"{name} on the simulated card")
        if source is None:
            _check_devices(func, name, args, inputs)
            _count_waits(name, args, kwargs)
    if on_card:
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu":
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        card.called(func, name)
    pins = kwargs.pop("pin_memory", False) or (
        name == "_to_copy" and wrappers and kwargs.get("non_blocking"))
    if on_card and device is not None: kwargs["device"] = torch.device("cpu")
    args, kwargs = _each(lambda x: x.elem if _is(x) else x, (args, kwargs))
    draws = torch.Tag.nondeterministic_seeded in func.tags
    with nullcontext() if not draws else card.drawing() if on_card else card.lock:
        found = func(*args, **kwargs)
    if pins and not on_card: found.untyped_storage().pinned = True
    if source is not None and _is(source) != on_card:
        blocks = not (kwargs.get("non_blocking") or name == "copy_" and len(args) > 2 and args[2])
        card.copied("H2D" if on_card else "D2H", getattr(source, "elem", source), found, blocks)
    if not on_card: return found
    if torch.Tag.inplace_view in func.tags:  # the shell takes the new form too
        with no_dispatch():
            aten.as_strided_.default(wrappers[id(found)], found.shape, found.stride(), 0)
    if card.jitter and name in PRODUCTS: found = _each(card.shaken, found)
    return _each(lambda x: wrappers[id(x)] if id(x) in wrappers else
                 CardTensor(x) if isinstance(x, Tensor) else x, found)


def _autocast_lists():
    """CUDA's policy of autocast, from the header of this torch: kind -> (name, overload)s."""
    text = (Path(torch.__file__).parent / "include/ATen/autocast_mode.h").read_text()
    kinds = ("LOWER_PRECISION_FP", "FP32", "FP32_SET_OPT_DTYPE", "PROMOTE")
    body = lambda kind: re.search(rf"#define AT_FORALL_{kind}\(_\)((?:.*\\\n)*.*)", text)[1]
    return {kind: re.findall(r"_\((\w+)(?:, (\w+))?\)", body(kind)) for kind in kinds}


def _autocast_kernel(op, kind):
    """The operation with its arguments cast. The real kernel passes by what it takes for 'meta'."""
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
    names = [a.name for a in op._schema.arguments]
    place = names.index("dtype") if "dtype" in names else None

    def run(*args, **kwargs):
        its = [x for x in _tensors((args, kwargs)) if castable(x)]
        dtype = torch.float32
        if kind == "LOWER_PRECISION_FP": dtype = torch.get_autocast_dtype("cuda")
        elif kind == "PROMOTE" and all(x.dtype != dtype for x in its): dtype = None
        with torch._C._ExcludeDispatchKeyGuard(key):
            if its: _card.casts[op._schema.name.removeprefix("aten::"), kind] += 1
            if kind == "FP32_SET_OPT_DTYPE":  # the result has this type, unless one is asked for
                asked = kwargs.get("dtype", args[place] if len(args) > place else None)
                if its and asked is None: args, kwargs = args[:place], kwargs | {"dtype": dtype}
            elif dtype is not None:
                cast = lambda x: (aten._to_copy.default(x, dtype=dtype)
                                  if castable(x) and x.dtype != dtype else x)
                args, kwargs = _each(cast, (args, kwargs))
            return op(*args, **kwargs)

    def castable(x):
        return _is(x) and x.is_floating_point() and x.dtype != torch.float64

    return run


def _autocast_kernels():
    """All kernels of autocast on the card, in a library that can be destroyed."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind, names in _autocast_lists().items():
            for name, overload in names:
                op = getattr(aten, name, None)
                op = getattr(op, overload or "default", None) or getattr(op, "default", None)
                if op is not None:
                    kernel = _autocast_kernel(op, kind)
                    library.impl(op, kernel, "AutocastCUDA", allow_override=True)
    return library


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if _card is None:  # a thread outlived the block
            return func(*args, **(kwargs or {}))
        return _compute(func, args, dict(kwargs or {}))


class _Function(TorchFunctionMode):
    """It answers what C++ would answer from the shell, or ask the driver for."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda":
            kwargs = kwargs | {"device": DEVICE}
        x = args[0] if args and isinstance(args[0], Tensor) else None
        if func is Tensor.to: return _to(x, *args[1:], **kwargs)
        if func is Tensor.cuda:
            return _to(x, DEVICE, non_blocking=kwargs.get("non_blocking", True in args[2:]))
        if func in (torch.tensor, torch.as_tensor) and (
                kwargs.get("device") == DEVICE or kwargs.get("pin_memory")):
            return _made(func, args[0], **kwargs)
        if not _is(x): return func(*args, **kwargs)
        if func is Tensor.cpu: return _to(x, torch.device("cpu"))
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() "
                            "to copy the tensor to host memory first.")
        if func is Tensor.new_tensor:
            return _made(torch.tensor, args[1], **{"dtype": x.dtype, "device": DEVICE} | kwargs)
        if func is Tensor.tolist:
            _card.wait("D2H")
            return x.elem.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            key = args[1]
            args = (x, tuple(map(_index, key)) if isinstance(key, tuple) else _index(key),
                    *(torch.tensor(v, dtype=x.dtype) if isinstance(v, (bool, int, float)) else v
                      for v in args[2:]))
        if func in (Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage_offset):
            return func(x.elem)
        if func == Tensor.data.__set__ and _is(args[1]): x.elem = args[1].elem.detach()
        if func is Tensor.get_device: return 0
        if func is Tensor.type and len(args) == 1 and not kwargs:
            return x.elem.type().replace("torch.", "torch.cuda.")
        return func(*args, **kwargs)


def _index(i):
    """A list as an index goes to the card, and the host waits."""
    if not isinstance(i, (list, range, np.ndarray)): return i
    return torch.tensor(i, dtype=None if len(i) else torch.long).to(DEVICE)


def _made(func, data, device=None, requires_grad=False, pin_memory=False, **kwargs):
    """A new tensor of the data, which C++ would hand to the driver by itself."""
    if _is(data) and func is torch.as_tensor: return data.to(**kwargs)
    made = func(data, **kwargs)
    if pin_memory: made = made.pin_memory()
    return (made if device is None else made.to(device)).requires_grad_(requires_grad)


def _to(x, *args, **kwargs):
    """Tensor.to, for a tensor that is on the card or goes there."""
    flags = [i for i, a in enumerate(args) if isinstance(a, bool)]  # non_blocking, copy
    copy = kwargs.get("copy", len(flags) > 1 and args[flags[1]])
    rest = {name: v for name, v in kwargs.items() if name != "copy"}
    plain = [a for i, a in enumerate(args) if i not in flags[1:]]
    device, dtype, non_blocking, form = torch._C._nn._parse_to(*plain, **rest)
    here = _is(x)
    to_card = here if device is None else device.type in (("cuda", "meta") if here else ("cuda",))
    if not here and not to_card: return Tensor.to(x, *args, **kwargs)
    dtype = dtype or x.dtype
    same_form = form in (None, torch.preserve_format) or x.is_contiguous(memory_format=form)
    if here == to_card and dtype == x.dtype and not copy and same_form: return x
    return aten._to_copy.default(x, dtype=dtype, device=DEVICE if to_card else device,
                                 non_blocking=non_blocking, memory_format=form)


def _is_pinned(x, device=None):
    return not _is(x) and getattr(x.untyped_storage(), "pinned", False)


def _pin_memory(x, device=None):
    if _is(x):
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be "
                           "pinned")
    if not _is_pinned(x):
        x = x.clone()
        x.untyped_storage().pinned = True
    return x


def _swap_tensors(one, other):
    """As torch's, but a graph may still hold one of them: a module that moves is not refused."""
    torch._C._swap_tensor_impl(one, other)
    one.__class__, other.__class__ = other.__class__, one.__class__
    one.__dict__, other.__dict__ = other.__dict__, one.__dict__


def _start(start):
    """Thread.start, so that a thread begun in a block enters the modes too."""

    def wrapped(thread):
        run = thread.run

        def inside():
            with _Dispatch(), _Function(): run()

        if _card is not None: thread.run = inside
        start(thread)

    return wrapped


def _replacements(card, capability):
    """What stands in the block for the variables of torch and the functions of C."""
    none, zero = lambda *a: None, lambda *a: 0
    memory = lambda device=None: (card.memory - card.live, card.memory)
    properties = SimpleNamespace(
        name="Simulated card", total_memory=card.memory, major=capability[0], minor=capability[1],
        multi_processor_count=40)

    def stats(device=None):
        its = {"current": card.live, "peak": card.peak}
        return {"allocated_bytes": {"all": its}, "reserved_bytes": {"all": its}}

    yield torch.cuda, dict(
        _initialized=False, _queued_calls=[], default_generators=(card.random,),
        _lazy_seed_tracker=type(torch.cuda._lazy_seed_tracker)(),
        _cudart=SimpleNamespace(cudaMemGetInfo=memory), is_available=lambda: True,
        _is_in_bad_fork=lambda: torch.cuda._initialized and card.process != os.getpid(),
        _get_device_properties=lambda device: properties, device_count=lambda: 1,
        _exchange_device=zero, _maybe_exchange_device=zero,
        is_current_stream_capturing=lambda: False)
    waits = lambda *a: card.wait("synchronize")
    yield torch._C, dict(
        _cuda_init=lambda: setattr(card, "process", os.getpid()), _cuda_getDeviceCount=lambda: 1,
        _cuda_getDevice=zero, _cuda_setDevice=none, _cuda_emptyCache=none,
        _cuda_synchronize=waits, _cuda_memoryStats=stats,
        _cuda_resetPeakMemoryStats=lambda *a: setattr(card, "peak", card.live),
        _cuda_set_sync_debug_mode=lambda mode: setattr(card, "debug", mode),
        _cuda_get_sync_debug_mode=lambda: card.debug,
        _accelerator_getAccelerator=lambda: torch.device("cuda"),
        _accelerator_getDeviceIndex=zero, _accelerator_setDeviceIndex=none,
        _accelerator_synchronizeDevice=waits, _accelerator_getMemoryInfo=memory,
        _accelerator_isAllocatorInitialized=lambda: True, _accelerator_getDeviceStats=stats,
        _accelerator_emptyCache=none)
    stream = SimpleNamespace(is_capturing=lambda: False)
    yield torch.accelerator, dict(current_stream=lambda device=None: stream)
    yield Tensor, dict(pin_memory=_pin_memory, is_pinned=_is_pinned)
    yield torch.utils, dict(swap_tensors=_swap_tensors)
    yield threading.Thread, dict(start=_start(threading.Thread.start))


def _initialise_real_card(card):
    """C++ believes now that CUDA is initialised, so it must be, if there is a real card."""
    if card.process is not None and torch.cuda.is_available(): torch.cuda.init()


@contextmanager
def simulated_card(memory=16 * 2**30, capability=(8, 0), float64=True, jitter=0.0):
    """Inside the block, torch has one CUDA device as far as Python can see."""
    global _card
    card, before = Card(memory, float64, jitter), _card
    with ExitStack() as stack:
        if before is None: stack.callback(_initialise_real_card, card)
        for place, its in _replacements(card, capability):
            for name, value in its.items():
                stack.enter_context(mock.patch.object(place, name, value, create=True))
        swap = torch.__future__.get_swap_module_params_on_conversion()
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swap)
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay objects
        stack.callback(_autocast_kernels()._destroy)
        stack.enter_context(_Dispatch())
        stack.enter_context(_Function())
        _card = card
        try: yield card
        finally: _card = before


@functools.cache
def skip_reason():
    """Why the card cannot be simulated with this torch, in a sentence; None if it can. With the
    torch that was tried, a failure is an error of this file and is raised."""
    try:
        with simulated_card() as card:
            net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).to("cuda")
            x = torch.rand(4, 3).pin_memory().to("cuda", non_blocking=True)
            with torch.autocast("cuda", torch.bfloat16): y = net(x)
            y.float().sum().backward()
            assert net[0].weight.grad.is_cuda and card.casts and card.live, "the card does nothing"
            assert card.copies and sum(y.cpu().shape) == 6, "copies are not seen"
    except Exception as error:
        if torch.__version__.startswith(TRIED): raise
        return (f"torch {torch.__version__} lacks something private that the simulated card needs: "
                f"{type(error).__name__}: {error}")
