"""The documentation is true: every Python block runs, every link leads somewhere, every option named exists."""
import re
import warnings
from pathlib import Path

import golden_checks
import pytest
from edited_files import change_json

from minisd.cli.options import parser

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md"), ROOT / "kernels" / "README.md"])
NAMES = [p.relative_to(ROOT).as_posix() for p in PAGES]
COURSE = "docs/learn/"                                       # docs/conftest.py runs its blocks
NEEDS_MORE = {"docs/cudaemu.md": "its block runs a kernel; tests/backend/test_cudaemu.py has the like",
              "docs/record/README.md": "tests/probe/test_recorders.py runs its blocks and holds what they print"}
MODELS = {"sd15": lambda place: golden_checks.write_pipeline(place / "stable-diffusion-v1-5", "sd1"),
          "pix2pix": lambda place: golden_checks.write_pipeline(place / "instruct-pix2pix", "sd1", channels=8),
          "upscaler": lambda place: golden_checks.write_family(place / "x4-upscaler", "upscaler", channels=7),
          "canny": lambda place: golden_checks.write_controlnet(place, "controlnet_sd1").rename(place / "controlnet-canny"),
          "xl": lambda place: golden_checks.write_family(place / "sdxl-base", "xl"),
          "refiner": lambda place: golden_checks.write_family(place / "sdxl-refiner", "refiner")}


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [n for n in NAMES if "```python" in text(n) and n not in NEEDS_MORE and not n.startswith(COURSE)])
def test_python_blocks_run(name, tmp_path, monkeypatch):
    """As they stand, one after the other; small models of drawn weights lie where a block says that a real one does."""
    for model in re.findall(r"<!-- models: (.+) -->", text(name)):
        for key in model.split(", "):
            folder = MODELS[key](tmp_path / "path" / "to")
            if key != "canny":
                change_json(folder / "unet" / "config.json", sample_size=4)          # pictures of 32x32 unless a block says otherwise
    golden_checks.a_picture()[1].save(tmp_path / "hat.png")
    monkeypatch.chdir(tmp_path)
    space = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                      # drawn weights, other sizes
        for block in re.findall(r"```python\n(.*?)```", text(name), re.S):
            exec(compile(block, name, "exec"), space)        # noqa: S102
    assert list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(name)):
        if not target.startswith(("http", "#")):
            path, _, anchor = target.partition("#")
            assert ((ROOT / name).parent / path).exists(), target
            if anchor:
                there = ((ROOT / name).parent / path).read_text(encoding="utf-8")
                headings = [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", there, re.M)]
                assert (headings + re.findall(r'<a id="([^"]*)"></a>', there)).count(anchor) == 1, target


@pytest.mark.parametrize("name", ["README.md", "docs/use.md"])
def test_options_exist(name):
    commands = next(a.choices for a in parser()._actions if hasattr(a, "choices") and isinstance(a.choices, dict))
    known = {o for p in commands.values() for a in p._actions for o in a.option_strings}
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", text(name))) <= known | {"--version"}


def test_files_named_in_the_readme_are_there():
    named = re.findall(r"^  (\w+\.py|\w+/)", text("README.md"), re.M) + re.findall(r"  (\w+\.py|cli/)  ", text("README.md"))
    assert len(named) > 15 and all((ROOT / "minisd" / name).exists() for name in named)


def test_the_course_shows_the_source_as_it_is():
    import runpy
    renewed = runpy.run_path(str(ROOT / "docs" / "learn" / "excerpts.py"))["renewed"]
    shown = [name for name in NAMES if "<!-- source:" in text(name)]
    assert len(shown) >= 9
    for name in shown:
        assert text(name) == renewed(text(name)), f"{name}: python docs/learn/excerpts.py draws it in anew"


def test_the_course_is_whole():
    """Each chapter says what one will be able to do, links the next, and has two exercises with solutions; its pictures are shown."""
    chapters = sorted(n for n in NAMES if re.match(COURSE + r"\d\d-", n))
    assert len(chapters) == 10 and all(Path(n).name in text(COURSE + "README.md") for n in chapters)
    for name, after in zip(chapters, [*chapters[1:], COURSE + "README.md"]):
        page = text(name)
        assert "*You will be able to:" in page and "## The idea" in page and f"]({Path(after).name}" in page.splitlines()[-1]
        assert page.count("<details><summary>Solution</summary>") == page.count("</details>") == 2 and "**2. In the engine.**" in page
        assert re.findall(r'"(\d\d-[\w-]+\.png)"', page) == re.findall(r"pictures/([\w-]+\.png)\)", page), name
    kept = {p.name for p in (ROOT / COURSE / "pictures").glob("*")}
    assert kept == {shown for name in chapters for shown in re.findall(r"pictures/([\w-]+\.png)\)", text(name))}


def test_the_drawing_of_the_unet_is_up_to_date():
    import runpy
    drawn = runpy.run_path(str(ROOT / "docs" / "pictures" / "unet.py"))
    assert text("docs/unet.md") == drawn["page"](), "python docs/pictures/unet.py writes it anew"
