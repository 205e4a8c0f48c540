"""Processes that are forked from one which has imported what nearly every chapter imports.

Importing PyTorch, torchvision and scikit-learn takes longer than most chapters run. Our own package
is not among them: each process imports it anew. `cka_nb.processes.launched` uses the same server.
"""

import multiprocessing
import os
import runpy
import sys
from threading import Thread

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["accelerate", "matplotlib.pyplot", "nbdev.test", "sklearn.datasets",
                               "torch._dynamo", "torchvision"])


def forked(function, *arguments, log, seconds=1800):
    """Call a function in a new process: its exit status, and what it printed into the file."""
    process = SERVER.Process(target=_logged, args=(log, function, arguments))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode, log.read_text(encoding="utf-8", errors="replace")


def _logged(log, function, arguments):
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    multiprocessing.set_start_method(None, force=True)  # the usual one, as in any program
    function(*arguments)


def run_notebook(path, flags):
    """Run a notebook from its own folder and store its outputs there."""
    os.chdir(path.parent)
    from nbdev.test import nbdev_test
    nbdev_test(str(path), flags=flags, save=True)


def run_command(folder, arguments):
    """`python -m cka_nb` from a folder, its standard error a pipe: what came is in `errors.txt`."""
    os.chdir(folder)
    end, write = os.pipe()
    reader = Thread(target=_copied, args=(end, "errors.txt"))
    reader.start()
    os.dup2(write, 2)
    os.close(write)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  the old one was a file
    sys.argv[1:] = arguments
    try:
        runpy.run_module("cka_nb", run_name="__main__", alter_sys=True)
    finally:
        os.dup2(1, 2)  # the pipe ends
        reader.join()


def _copied(pipe, name):
    with open(pipe, "rb") as held, open(name, "wb") as file:
        file.write(held.read())
