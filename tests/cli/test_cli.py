"""The command line: what it writes and says, its exit codes, and that nothing half-written is left behind."""
import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from edited_files import change
from PIL import Image

from minisd.backend import threads
from minisd.cli import main as cli
from minisd.cli import paint
from minisd.cli.signals import Terminated, signals
from minisd.errors import InputError
from minisd.image.saving import save
from minisd.model import Model


@pytest.fixture
def run(sd1_folder, tmp_path, capsys):
    """run(*arguments) -> (exit code, standard output, standard error), with a small picture of one step as a start."""
    def run(*arguments, model=sd1_folder, out=tmp_path / "out.png"):
        code = cli.main(["txt2img", "a cat", "-m", str(model), "-o", str(out), "--size", "64x64", "--steps", "2", "--seed", "3",
                         *map(str, arguments)])
        return code, *capsys.readouterr()
    return run


def left(folder):
    return sorted(os.listdir(folder))


def test_a_picture(run, tmp_path, sd1):
    code, out, err = run("--sampler", "euler", "--guidance", "5", "--negative", "blur, noise")
    assert code == 0 and "out.png: 64x64, seed 3" in out and "s/step" in err
    with Image.open(tmp_path / "out.png") as picture:
        expected = sd1.txt2img("a cat", "blur, noise", num_inference_steps=2, guidance_scale=5.0, seed=3, width=64, height=64,
                               sampler="euler")
        assert np.array_equal(np.asarray(picture), np.asarray(expected))
        assert picture.info["parameters"].startswith(
            "a cat\nNegative prompt: blur, noise\nSteps: 2, Sampler: Euler, CFG scale: 5, Seed: 3")


def test_profile(run, monkeypatch):
    """The rows add up, and the arithmetic is what the shapes say."""
    import minisd.probe.profile
    kept, before = [], threads.count()
    monkeypatch.setattr(minisd.probe.profile, "Profile", lambda make=minisd.probe.profile.Profile: kept.append(make()) or kept[0])
    code, out, _ = run("--profile", "--threads", 1, "--low-memory", "--quiet")
    threads.use(before)
    table = out.split("\n", 1)[1].rstrip().split("\n")
    assert code == 0 and table[0].split() == ["operation", "calls", "seconds", "share", "GFLOP/s"]
    assert table[-1].startswith("1 threads; NumPy's products: ")
    rows, seconds = kept[0].rows, kept[0].seconds
    assert {"linear", "attention", "residual_block", "norm_conv2d", "conv2d"} <= set(rows) == {line.split()[0] for line in table[1:-3]}
    assert 0 < sum(r[1] for r in rows.values()) < seconds


def test_a_wrong_number_of_threads(run, tmp_path):
    code, _, err = run("--threads", 0)
    assert code == 1 and "threads is 0; it must be a whole number from 1 to 1024" in err and not left(tmp_path)


def test_several(run, tmp_path):
    code, out, _ = run("-n", 3, "--quiet")
    assert code == 0 and left(tmp_path) == ["out-1.png", "out-2.png", "out-3.png"]


def test_a_prompt_in_any_script_is_kept(run, tmp_path, capsys, sd1_folder):
    prompt = "東京 🗼, naïve\nline"
    out = tmp_path / "a.png"
    assert cli.main(["txt2img", prompt, "-m", str(sd1_folder), "-o", str(out), "--steps", "1", "--quiet", "--size", "8x8"]) == 0
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info["parameters"].startswith(prompt)


def test_a_prompt_that_is_no_text(sd1_folder, tmp_path, capsys):
    assert cli.main(["txt2img", "caf\udce9", "-m", str(sd1_folder), "-o", str(tmp_path / "a.png"), "--size", "8x8"]) == 1
    assert "is not valid text" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written_is_found_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *a: False)      # root may write anywhere
    monkeypatch.setattr(paint, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    code, _, err = run()
    assert code == 1 and "may not be written to" in err


@pytest.mark.parametrize("arguments, message", [
    (["--size", "65x64"], "multiple of 8"), (["--size", "64"], "WIDTHxHEIGHT"), (["--steps", "0"], "from 1 to 1000"),
    (["--sampler", "magic"], "choose one of"), (["-n", "0"], "it must be from 1 to 100,000"), (["--seed", str(2**64)], "whole number"),
    (["--rng", "dice"], "cpu or cuda"),
    (["-o", ""], "-o is empty"), (["-o", "x" * 300 + "/a.png"], "too long")])
def test_errors_are_said_in_one_line(run, tmp_path, arguments, message):
    code, out, err = run(*arguments)
    assert code == 1 and message in err and err.startswith("minisd: error: ") and err.count("\n") == 1 and left(tmp_path) == []


@pytest.mark.parametrize("out, message", [("no/such/out.png", "there is no folder"), ("", "is a folder"),
                                          ("out.bmp", "end the name in .png")])
def test_a_place_that_cannot_be_written_is_found_before_the_work(run, tmp_path, out, message, monkeypatch):
    monkeypatch.setattr(paint, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    code, _, err = run(out=tmp_path / out)
    assert code == 1 and message in err


def test_a_full_disk(run, tmp_path, monkeypatch):
    def full(self, file, **how):
        file.write(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    code, _, err = run("--quiet")
    assert code == 1 and "the disk is full; nothing was written" in err and left(tmp_path) == []


def test_an_older_picture_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"older")
    monkeypatch.setattr(Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(InputError, match="nothing was written"):
        save(path, Image.new("RGB", (8, 8)))
    assert left(tmp_path) == ["out.png"] and path.read_bytes() == b"older"


def test_interrupted_while_it_writes(tmp_path, monkeypatch):
    def interrupted(self, file, **how):
        file.write(b"half a picture")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "out.png", Image.new("RGB", (8, 8)))
    assert left(tmp_path) == []


def test_ctrl_c(sd1_folder, tmp_path):
    """A real signal to a real process in the middle of a long run."""
    process = subprocess.Popen([sys.executable, "-m", "minisd", "txt2img", "a cat", "-m", str(sd1_folder), "-o",
                                str(tmp_path / "out.png"), "--steps", "900", "--sampler", "ddim"], stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))      # a shell's background jobs ignore it
    seen = ""
    while "s/step" not in seen:                              # the bar's first sign of life
        character = process.stderr.read(1)
        assert character, f"it ended by itself: {seen}"
        seen += character
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted; no half-written file is left" in err and "Traceback" not in err
    assert left(tmp_path) == []


ENDS = {"SIGINT": (130, "minisd: interrupted; no half-written file is left\n"),
        "SIGTERM": (143, "minisd: terminated; no half-written file is left\n")}


def ended(program):
    done = subprocess.run([sys.executable, "-c", f"import signal, sys\n{program}"], capture_output=True, text=True, timeout=60,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return done.returncode, done.stderr


@pytest.mark.parametrize("which", ENDS)
def test_a_signal_amid_the_work(which):
    """What it interrupts raises an error of its own instead."""
    assert ended(f"def work(a):\n try: signal.raise_signal(signal.{which})\n except BaseException: raise OSError('an encoder') from None\n"
                 "from minisd.cli import main\nmain.COMMANDS['selftest'] = work\nsys.exit(main.main(['selftest']))") == ENDS[which]


@pytest.mark.parametrize("which", ENDS)
def test_a_signal_while_the_command_line_is_imported(which):
    """No file was begun then; SIGTERM is quiet."""
    code, words = ENDS[which]
    assert ended("class Finder:\n def find_spec(name, *_):\n  if name == 'numpy':\n   sys.meta_path.remove(Finder)\n"
                 f"   try: signal.raise_signal(signal.{which})\n   except BaseException: raise ImportError('numpy') from None\n"
                 "sys.meta_path.insert(0, Finder)\nsys.argv = ['minisd', '--version']\nfrom minisd.__main__ import main\nsys.exit(main())"
                 ) == (code, words if which == "SIGINT" else "")


def test_a_signal_as_its_handler_is_taken_away():
    assert ended("set_ = signal.signal\ndef slow(number, handler):\n if handler == signal.SIG_DFL: signal.raise_signal(signal.SIGTERM)\n"
                 " return set_(number, handler)\nfrom minisd.cli import main\nmain.COMMANDS['selftest'] = lambda a: 0\n"
                 "signal.signal = slow\nsys.exit(main.main(['selftest']))") == ENDS["SIGTERM"]


@pytest.mark.parametrize("becomes", ["itself", "another error", "nothing", "a callback's"])
@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_what_comes_out(which, becomes, capfd):
    class Callback:
        def __del__(self):
            signal.raise_signal(which)

    before = signal.getsignal(which)
    with pytest.raises(KeyboardInterrupt if which == signal.SIGINT else Terminated):
        with signals():
            try:
                if becomes == "a callback's":
                    Callback()
                else:
                    signal.raise_signal(which)
            except BaseException:
                if becomes == "itself":
                    raise
                if becomes == "another error":
                    raise ImportError("as numpy makes of it") from None
    assert signal.getsignal(which) == before and capfd.readouterr().err == ""


def test_what_else_goes_wrong_in_a_callback_is_said(monkeypatch):
    class Callback:
        def __del__(self):
            raise ValueError("of its own")

    said = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: said.append(str(lost.exc_value)))
    with signals():
        Callback()
    assert said == ["of its own"]


def test_a_signal_that_is_ignored_stays_so():
    """As a shell's background jobs ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_out_of_memory(run, monkeypatch):
    monkeypatch.setattr(Model, "decode", lambda *a: (_ for _ in ()).throw(MemoryError("Unable to allocate 3 TiB")))
    code, _, err = run("--quiet")
    assert code == 1 and "not enough memory: Unable to allocate 3 TiB" in err


def test_a_warning_is_one_line(run):
    code, _, err = run("--guidance", "0.5", "--quiet")
    assert code == 0 and "minisd: warning: --guidance 0.5 is below 1, which turns guidance off, as 1 does\n" in err
    assert all(line.startswith("minisd: warning: ") for line in err.splitlines())


def test_a_size_far_from_the_trained_one_is_warned_of(run):
    assert "minisd: warning: 64x64 is far from the 128x128 that this model was trained on: little of the prompt" in run("--quiet")[2]


def test_debugging_shows_where_an_error_comes_from(monkeypatch):
    monkeypatch.setenv("MINISD_DEBUG", "1")
    with pytest.raises(InputError):
        cli.main(["txt2img", "a cat", "-m", "/no/such/place"])


def test_inspect(sd1_folder, capsys):
    assert cli.main(["inspect", str(sd1_folder)]) == 0
    out = capsys.readouterr().out
    from minisd.checkpoint.folder import open_folder
    for words in ("predicts    epsilon", "PNDMScheduler (sampler pndm)",
                  f"unet: {len(open_folder(sd1_folder).unet.tensors)} weights", "missing: none", "unused: none",
                  "conv_in", "weight 32x4x3x3", "0-2", "each of 3"):
        assert words in out
    assert cli.main(["inspect", "/no/such/place"]) == 1


def test_inspect_counts_what_is_there(sd1_folder, capsys):
    from safetensors.numpy import load_file
    numbers = sum(a.size for a in load_file(sd1_folder / "unet/diffusion_pytorch_model.safetensors").values())
    cli.main(["inspect", str(sd1_folder)])
    assert f"{numbers:,} numbers" in capsys.readouterr().out


def test_inspect_of_a_damaged_model(sd1_copy, capsys):
    change(sd1_copy / "unet/diffusion_pytorch_model.safetensors",
           lambda a: a.pop("conv_out.bias") is None or a.update({"extra": np.zeros(2, np.float32)}))
    assert cli.main(["inspect", str(sd1_copy)]) == 1
    out = capsys.readouterr().out
    assert "missing: conv_out.bias" in out and "unused: extra" in out


def test_selftest(capsys, monkeypatch):
    assert cli.main(["selftest"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("OK: ") and out.count("\n") == 1
    from minisd.backend import ops
    monkeypatch.setitem(ops.DEFINITIONS, "silu", lambda x: x * 0.999 / (1 + np.exp(-x)) if x.dtype == np.float32 else x / (1 + np.exp(-x)))
    assert cli.main(["selftest"]) == 1
    assert capsys.readouterr().out == "NOT OK: silu\n"


def test_usage_errors_exit_with_2():
    with pytest.raises(SystemExit) as exit:
        cli.main(["txt2img"])
    assert exit.value.code == 2


def test_output_into_a_closed_pipe(sd1_folder):
    shown = subprocess.run(f"{sys.executable} -m minisd inspect {sd1_folder} | head -1", shell=True, capture_output=True, text=True)
    assert shown.stdout.startswith("model") and shown.stderr == ""
    shown = subprocess.run(f"{sys.executable} -m minisd selftest | true", shell=True, capture_output=True, text=True)
    assert shown.stderr == ""
