"""The course's chapters as tests: each block of Python runs, in order, in one namespace a chapter, in an empty folder; the pictures that
the blocks save must be those of pictures/.  `pytest docs --write-pictures` writes these anew."""
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

PICTURES = Path(__file__).parent / "learn" / "pictures"
FAR = 4.0                                                    # levels of 255, the mean over areas of 8x8: fonts and rounding stay below
write = False


def pytest_addoption(parser):
    parser.addoption("--write-pictures", action="store_true", help="keep the pictures that the course's blocks save as the right ones")


def pytest_configure(config):
    global write
    write = config.getoption("--write-pictures", default=False)
    matplotlib.use("agg")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The blocks of a chapter share a namespace, so a process."""
    from xdist.scheduler import LoadFileScheduling
    return LoadFileScheduling(config, log)


def areas(path):
    """A picture's file -> ((H,W,3), the means of its areas of 8x8 pixels (H/8,W/8,3))"""
    a = np.asarray(Image.open(path).convert("RGB"), np.float32)
    h, w = (n // 8 * 8 for n in a.shape[:2])
    return a.shape, a[:h, :w].reshape(h // 8, 8, w // 8, 8, 3).mean((1, 3))


def setup(namespace):
    """An empty folder for a chapter to save in."""
    namespace["_back"] = os.getcwd(), tempfile.mkdtemp()
    os.chdir(namespace["_back"][1])


def teardown(namespace):
    """What a chapter saved is what it shows; or is kept as that."""
    before, place = namespace["_back"]
    os.chdir(before)
    try:
        for found in sorted(Path(place).glob("*.png")):
            kept = PICTURES / found.name
            if write:
                shutil.copy(found, kept)
                continue
            assert kept.exists(), f"{found.name} is not in docs/learn/pictures: look at it, then `pytest docs --write-pictures`"
            (shape, a), (other, b) = areas(found), areas(kept)
            assert shape == other, f"{found.name} is {shape}, {kept} {other}"
            assert (far := float(np.abs(a - b).max())) < FAR, f"{found.name} differs from docs/learn/pictures by {far:.1f} levels somewhere"
    finally:
        shutil.rmtree(place)


pytest_collect_file = Sybil([PythonCodeBlockParser()], pattern="learn/*.md", setup=setup, teardown=teardown).pytest()
