"""What ends a command before its end: the keyboard, a limit of the machine, a folder that goes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.children import Children
from helpers.crash_toys import write_images

from lrpjax._base.locks import LOCK, held

TOY = ("--model", "helpers.crash_toys:net", "--images", "images.npz")
AUDIT = ("audit", *TOY, "--method", "lrp-z", "--out", "run")


@pytest.fixture(scope="module")
def children(tmp_path_factory):
    with Children(tmp_path_factory.mktemp("cache")) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    write_images(work)
    return work


@pytest.fixture
def run(children, folder):
    return lambda *arguments, **options: children.run(*arguments, cwd=folder, **options)


def files(folder):
    given = {"images.npz", "data.npz", "computing", "slow_module.py"}
    found = (f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return sorted(str(f.relative_to(folder)) for f in found if f.name not in given)


def pieces(folder):
    return [name for name in files(folder) if "piece-" in name]


def is_one_sentence(ended):
    """The last line is the command's only word about its end."""
    *before, last = ended.text.rstrip().splitlines()
    assert last.startswith("lrpjax: ") and last.endswith(".")
    assert "Traceback" not in ended.text and not any(line.startswith("lrpjax: ") for line in before)
    return last


def test_files_that_may_not_grow_cost_what_is_too_large_for_them(run, folder):
    ended = run(*AUDIT, limits={"RLIMIT_FSIZE": 4000})
    said = is_one_sentence(ended)
    assert ended.status == 1 and "mprt.json' cannot be written (File too large): raise" in said
    assert "is kept in 'run/pieces', and the same call goes on from there" in said
    kept = pieces(folder)
    assert kept and files(folder) == [*kept, "run/pieces/settings.json"]
    assert all(json.loads((folder / name).read_text(encoding="utf-8")) for name in kept)
    ended = run(*AUDIT, limits={"RLIMIT_FSIZE": 100_000})  # enough for pieces, not for the page
    assert ended.status == 1 and "audit.html' cannot be written (File too large)" in ended.text
    assert len(pieces(folder)) == 18 and not [n for n in files(folder) if n.endswith(".part")]
    assert run(*AUDIT).status == 0


def test_64_descriptors_are_enough(run, folder):
    assert run(*AUDIT, limits={"RLIMIT_NOFILE": 64}).status == 0
    assert "run/audit.html" in files(folder)


def test_without_descriptors_it_is_one_sentence(run, folder):
    ended = run(*AUDIT, limits={"RLIMIT_NOFILE": 10})
    assert ended.status == 1 and "Too many open files" in is_one_sentence(ended)
    assert not [name for name in files(folder) if name.endswith((".part", ".lock"))]


def test_two_gigabytes_of_addresses_are_enough_or_it_is_one_sentence(run, folder):
    ended = run(*AUDIT, limits={"RLIMIT_AS": 2 << 30})
    if ended.status:
        assert "not enough memory" in is_one_sentence(ended)
    else:
        assert "run/audit.html" in files(folder)


def test_a_folder_that_goes_half_way_is_one_sentence(run, folder):
    ended = run(*AUDIT, prepare="folder_goes")
    assert ended.status == 1 and "was removed while it ran, and nothing" in is_one_sentence(ended)
    assert files(folder) == []


OUTPUTS = {
    "audit": ("audit", *TOY, "--out"),
    "train": ("train", "--data", "data.npz", "--epochs", "1", "--out"),
    "patterns": ("patterns", *TOY),
}


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_file_in_the_place_of_the_folder_is_one_sentence(run, folder, command):
    (folder / "file").write_text("kept")
    ended = run(*OUTPUTS[command], "file/out", prepare="small_network")
    assert ended.status == 1 and "cannot be written (" in is_one_sentence(ended)
    assert (folder / "file").read_text() == "kept" and files(folder) == ["file"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that not even root may write")
@pytest.mark.parametrize("command", OUTPUTS)
def test_a_folder_that_nobody_may_write_to_is_one_sentence(run, folder, command):
    ended = run(*OUTPUTS[command], "/proc/self/out/x", prepare="small_network")
    assert ended.status == 1 and "cannot be written (" in is_one_sentence(ended)


@pytest.mark.parametrize("command", OUTPUTS)
def test_a_second_process_is_refused_by_every_command(run, folder, command):
    out = folder / "out"
    place = (folder, ".out.lock") if command == "patterns" else (out, LOCK)
    with held(*place):
        ended = run(*OUTPUTS[command], "out", prepare="small_network")
    assert ended.status == 1 and "is in use (process " in is_one_sentence(ended)
    assert files(folder) == []


def test_ctrl_c_is_answered_while_the_main_thread_computes_and_twice_ends_it(run):
    ended = run(*AUDIT, prepare="computes_for_ever", interrupt_when="computing", interrupts=2)
    assert ended.status == 130
    (line,) = ended.text.strip().splitlines()
    assert line.startswith("lrpjax: interrupted, and waiting for the step that is being computed")


def test_ctrl_c_does_not_wait_for_threads(run, folder):
    how = {"prepare": "threads_compute_for_ever", "interrupt_when": "computing"}
    ended = run(*AUDIT, **how)
    assert ended.status == 130 and "Traceback" not in ended.text
    assert "Interrupted: what is finished is in run/pieces; the same command goes on." in ended.text
    assert not [name for name in files(folder) if name.endswith((".part", ".lock"))]


def test_ctrl_c_during_imports_says_nothing(run, folder):
    model = ("--model", "slow_module:net")
    ended = run("csc", *model, prepare="imports_for_ever", interrupt_when="computing")
    assert ended.status == 130 and ended.text == ""


@pytest.mark.parametrize("command", ["audit", "train", "patterns"])
def test_another_run_in_the_same_folder_is_refused_with_what_differs(run, folder, command):
    changed, said = {
        "audit": (("--draws", "2"), "draws: 1, now 2"),
        "train": (("--seed", "1"), "key: [0, 0], now [0, 1]"),
        "patterns": (("--mode", "linear"), 'mode: "relu", now "linear"'),
    }[command]
    first, prepare = (*OUTPUTS[command], "out"), "small_network"
    if command == "patterns":  # which keeps its pieces until the end
        first = ("patterns", "out", "--model", "helpers.crash_toys:slow", "--data", "data.npz")
        prepare = "small_batches"
        ended = run(*first, prepare=prepare, interrupt_when="out.part/means.npz")
        assert ended.status == 130 and "so far is in out.part; the same command" in ended.text
    else:
        assert run(*first, prepare=prepare).status == 0
    before = files(folder)
    ended = run(*first, *changed, prepare=prepare)
    assert ended.status == 1 and f"({said})" in is_one_sentence(ended)
    assert files(folder) == before


def test_other_data_is_refused_and_the_same_goes_on(run, folder):
    train = ("train", "--data", "data.npz", "--epochs", "2", "--out", "run")
    assert run(*train, prepare="small_network").status == 0
    weights = (folder / "run" / "cifar10.safetensors").read_bytes()
    ended = run(*train, "--epochs", "3", prepare="small_network")
    assert ended.status == 1 and "(epochs: 2, now 3)" in is_one_sentence(ended)
    content = (folder / "data.npz").read_bytes()
    with np.load(folder / "data.npz") as found:
        images, labels = found["images"].copy(), found["labels"]
    images[0, 0, 0, 0] ^= 1
    np.savez(folder / "data.npz", images=images, labels=labels)
    ended = run(*train, prepare="small_network")
    assert ended.status == 1 and "(images: another)" in is_one_sentence(ended)
    assert run(*train, "--overwrite", prepare="small_network").status == 0
    (folder / "data.npz").write_bytes(content)
    assert run(*train, "--overwrite", prepare="small_network").status == 0
    assert (folder / "run" / "cifar10.safetensors").read_bytes() == weights
    assert Path(folder / "run" / "checkpoint.safetensors").exists()


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    command = [sys.executable, "-m", "lrpjax", "csc", "--out", str(tmp_path)]
    environment = os.environ | {"JAX_PLATFORMS": "no-such-platform"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 1 and ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith(
        "lrpjax: JAX finds nothing to compute on here (JAX_PLATFORMS is 'no-such"
    )


@pytest.mark.parametrize("delay", [0.1, 0.3])
def test_ctrl_c_right_after_the_start_is_no_traceback(tmp_path, delay):
    """While the command's own modules are loaded, from its first line on."""
    script = f"""
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
from lrpjax.__main__ import main
sys.argv = ["lrpjax", "csc", "--out", {str(tmp_path)!r}]
threading.Timer({delay}, os.kill, (os.getpid(), signal.SIGINT)).start()
main()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")
