"""first.py: one straight path, short, and the same picture as the whole engine's."""
import ast
import subprocess
import sys
from pathlib import Path

import golden_checks
import numpy as np
import pytest
from PIL import Image

import minisd
from minisd import first

SOURCE = Path(first.__file__).read_text(encoding="utf-8")


def test_it_is_short_and_straight():
    """At most 150 lines; one function, no class, no closure."""
    kinds = [type(n) for n in ast.walk(ast.parse(SOURCE))]
    assert SOURCE.count("\n") <= 150
    assert kinds.count(ast.FunctionDef) == 1 and not {ast.ClassDef, ast.Lambda, ast.Yield} & set(kinds)


def test_the_shipped_models_picture_is_the_engines():
    np.testing.assert_array_equal(np.asarray(first.draw(seed=3)),
                                  np.asarray(minisd.load().txt2img("a red apple on a blue background", seed=3)))


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_other_models_pictures_too(family, tmp_path):
    """SD 1.x predicts the noise, this SD 2.x v; both networks are small ones, of the real ones' structure."""
    place = golden_checks.write_pipeline(tmp_path / family, family)
    how = dict(prompt="a fox", seed=7, guidance_scale=5.0)
    expected = minisd.load(place).txt2img(**how, num_inference_steps=4, sampler="ddim")
    np.testing.assert_array_equal(np.asarray(first.draw(place, **how, steps=4)), np.asarray(expected))


def test_it_runs_as_a_program(tmp_path):
    done = subprocess.run([sys.executable, "-m", "minisd.first"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (128, 128)
