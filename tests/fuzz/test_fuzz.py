"""Properties of whatever comes in (hypothesis), and 500 of the mutated inputs."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import minisd
from minisd.errors import MinisdError, printable
from minisd.image import metadata, pixels
from minisd.prompt.schedule import Scripts
from minisd.prompt.syntax import parse
from minisd.settings import Settings

ROOT = Path(__file__).parents[2]
often = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
seldom = settings(often, max_examples=60)
pieces = st.sampled_from(["(", ")", "[", "]", ":", "|", "AND", "BREAK", " ", "0.5", "3", "cat", "\\", "<lora:x:1>", "\n", ","])
prompts = st.lists(pieces | st.text(max_size=5), max_size=30).map("".join)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.builds(np.float32, st.floats(width=32))
    | st.sampled_from([np.zeros(3), np.int64(4), b"x", "euler", "karras", "cuda", "trailing", 16, 24, 2]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@often
@given(prompts, st.integers(1, 30))
def test_prompts(prompt, steps):
    """Any prompt is read; what it says at each step is made of its own characters, in their order."""
    scripts = Scripts([prompt], [prompt])
    for step in {1, steps}:
        for (text,), _ in scripts.at(step, steps).positives:
            rest = iter(prompt)
            assert all(c in rest for c in text)
            assert all(weight == weight for _, weight in parse(text))
    assert len(scripts.weights) == 1 + len(re.findall(r"\bAND\b", prompt))


@often
@given(st.text(st.characters(exclude_characters="()[]\\:BA", exclude_categories=["Cs"])))
def test_a_prompt_without_marks_is_itself(prompt):
    assert parse(prompt) == [(prompt, 1.0)]


@seldom
@given(texts, texts, st.integers(-(2**63), 2**64 - 1), st.floats(0, 1e6), st.sampled_from(["png", "webp", "jpg"]))
def test_settings_come_back(tmp_path_factory, prompt, negative, seed, scale, ending):
    path = tmp_path_factory.mktemp("p") / f"a.{ending}"
    given = {"Steps": 3, "Seed": seed, "CFG scale": scale, "Model": prompt}
    image = Image.new("RGB", (1, 1))
    image.info = {
        "parameters": metadata.parameters_text(prompt, negative, given),
        "minisd": metadata.settings_json(prompt, negative, given),
    }
    minisd.save(path, image)
    assert metadata.read_parameters(path) == (prompt, negative, {k: str(v) for k, v in given.items()})


@often
@given(st.dictionaries(st.text("abc /-_ ", min_size=1, max_size=8).map(str.strip).filter(metadata.KEY.fullmatch), texts, max_size=5))
def test_the_settings_text_is_read_as_it_is_written(found):
    line = metadata.parameters_text("", None, found).partition("\n")[2]
    read = metadata.fields(line)
    assert {k: v.strip() for k, v in read.items()} == {k: v.strip() for k, v in found.items()}


@often
@given(st.dictionaries(st.sampled_from([f.name for f in dataclasses.fields(Settings)]), values, max_size=3))
def test_arguments(sd1, how):
    """Any values: a run that is settled, or an error of ours."""
    how = {"num_inference_steps": 2, "width": 16, "height": 16, "seed": 1, **how}
    try:
        steps = sd1.txt2img_steps("a cat", **how)
    except MinisdError as e:
        assert str(e) == printable(str(e)) and len(str(e)) < 2100
        return
    steps.close()


@often
@given(st.binary(max_size=400))
def test_no_file_is_a_picture_by_chance(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("p") / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(minisd.InputError):
        pixels.read(path)


@often
@given(st.text())
def test_a_terminal_obeys_none_of_it(text):
    shown = printable(text)
    assert not any(c in shown for c in "\x1b\x00\x07\x08\r\x7f\x9b\u202e\u2066")
    assert printable(shown) == shown and (text != text.encode("ascii", "ignore").decode() or not text.isprintable() or shown == text)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork, by which each case gets a process; every other system runs this")
def test_mutated_inputs():
    """100 cases of tests/fuzz/cases.py; CI has 10,000."""
    done = subprocess.run([sys.executable, "-m", "tests.fuzz", "100", "--seed", "20261126"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().split("\n")[-1].startswith("100 inputs in ")
