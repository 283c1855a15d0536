"""What docs/record/README.md shows is true: what its port prints, and that its recorders write what is read."""
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from minisd.probe.activations import Activations

PAGE = (Path(__file__).parent.parent.parent / "docs" / "record" / "README.md").read_text(encoding="utf-8")


def block(kind):
    return re.search(rf"```{kind}\n(.*?)```", PAGE, re.S)[1]


def without_numbers(text):
    return re.sub(r"\d\.\de[+-]\d\d", "N", text)


def test_the_story_is_what_happens(tmp_path, monkeypatch, capsys):
    """But for the last digits, which are another processor's."""
    monkeypatch.chdir(tmp_path)
    space = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.S), start=1):
        capsys.readouterr()
        exec(compile(code, "docs/record/README.md", "exec"), space)              # noqa: S102
        shown = re.search(rf"<!-- output {number} -->\n```text\n(.*?)```", PAGE, re.S)[1]
        assert without_numbers(capsys.readouterr().out) == without_numbers(shown)
        if number == 1:
            import minisd
            table = minisd.compare("rec", "theirs.npz", space["pipe"]).table()
            rows = re.search(r"<!-- table -->\n```text\n(.*?)```", PAGE, re.S)[1]
            assert without_numbers(table).startswith(without_numbers(rows).rstrip())


def written(folder):
    found = Activations(folder, {"unet.conv_in": (1, 2, 3, 4), "unet.time_embedding": (1, 5)})
    assert np.array_equal(found["unet.conv_in"], np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4))
    assert np.array_equal(found["unet.time_embedding"], np.arange(5, dtype=np.float32)[None])


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++, which CI installs")
def test_cpp(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "a.cpp").write_text(block("cpp") + """
int main() {
    std::vector<float> a;
    for (int i = 0; i < 24; i++) a.push_back(i);
    keep("unet.conv_in", a.data(), {1, 2, 3, 4});
    keep("unet.time_embedding", a.data(), {5});
}""")
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", "a.cpp", "-o", "a"], cwd=tmp_path, check=True)
    subprocess.run(["./a"], cwd=tmp_path, check=True)
    written(tmp_path / "theirs")


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run JavaScript")
def test_javascript(tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "a.js").write_text(block("js") + """
const a = Float32Array.from({length: 24}, (_, i) => i);
keep("unet.conv_in", a, [1, 2, 3, 4]);
keep("unet.time_embedding", a.subarray(0, 5), [5]);""")
    subprocess.run(["node", "a.js"], cwd=tmp_path, check=True)
    written(tmp_path / "theirs")


def test_jax(tmp_path, monkeypatch):
    """Its lines, with NumPy's arrays, which np.asarray() makes of JAX'."""
    monkeypatch.chdir(tmp_path)
    before, _, after = block("py").partition("np.savez")
    space = {"np": np}
    exec(before, space)                                                          # noqa: S102
    space["keep"]("unet.conv_in", np.arange(24.0).reshape(1, 2, 3, 4)), space["keep"]("unet.time_embedding", np.arange(5.0)[None])
    exec("np.savez" + after, space)                                              # noqa: S102
    written(tmp_path / "theirs.npz")
