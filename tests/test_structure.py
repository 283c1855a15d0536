"""The shape of the project: who may import whom, what the package needs to run, what it offers.

The floors of the house are import-linter's contracts in pyproject.toml; `lint-imports` holds them."""
import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minisd

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minisd"
FILES = sorted(p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py"))
NETWORKS = [f for f in FILES if f.startswith("networks/")]
WINGS = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


def parsed(name):
    return ast.parse((PACKAGE / name).read_text(encoding="utf-8"))


def packages(name):
    """Top-level packages that a file of ours imports, our own left out."""
    nodes = list(ast.walk(parsed(name)))
    found = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    return found | {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}


def test_the_floors_hold():
    """The contracts in pyproject.toml, where import-linter is installed (it is in CI)."""
    pytest.importorskip("importlinter", reason="pip install '.[lint]' brings import-linter, which CI has")
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_import_no_library_and_build_nothing(name):
    assert packages(name) <= {"contextlib", "dataclasses", "re"}
    assert not any(isinstance(n, ast.FunctionDef) and n.name == "__init__" for n in ast.walk(parsed(name)))


def test_every_name_is_where_it_is_said_to_be():
    """What type checkers read in minisd/__init__.py is what a program gets, when it first asks."""
    said = {n.name: node.module for node in ast.walk(parsed("__init__.py")) if isinstance(node, ast.ImportFrom) and node.level
            for n in node.names}
    assert said == minisd.HOME and set(minisd.__all__) == set(said) <= set(dir(minisd))
    for name, module in said.items():
        assert getattr(minisd, name) is getattr(sys.modules[f"minisd.{module}"], name)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        minisd.laod
    done = subprocess.run([sys.executable, "-c", "import minisd, sys; print('numpy' in sys.modules)"], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_there_are_eight_wings():
    assert WINGS == ["backend", "checkpoint", "cli", "diffusion", "image", "networks", "probe", "prompt"]


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_lists_its_files(wing):
    """In the first lines of its __init__.py, which hold nothing else."""
    tree = parsed(f"{wing}/__init__.py")
    assert len(tree.body) == 1, "a wing's __init__.py is its guide"
    text = ast.get_docstring(tree).replace("*_config.py", " ".join(f.name for f in (PACKAGE / wing).glob("*_config.py")))
    assert all(f.name in text for f in (PACKAGE / wing).glob("*.py") if f.name != "__init__.py")


@pytest.mark.parametrize("name", [f for f in FILES if f != "__main__.py"])
def test_files_say_what_they_are(name):
    assert ast.get_docstring(parsed(name))


def test_top_level():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("an unpacked archive has no list of tracked files to hold against (a clone, as in CI, has one and runs this)")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {t for t in top if not t.startswith(".")} <= {"pyproject.toml", "minisd", "kernels", "tests", "docs", "README.md", "LICENSE"}


def test_running_needs_no_framework(sd1_folder, tmp_path):
    """A whole run, and none of these has been imported."""
    frameworks = "torch diffusers transformers cupy scipy huggingface_hub"
    program = ("import sys; from minisd.cli.main import main; code = main(sys.argv[1:]); "
               f"print(sorted(set({frameworks!r}.split()) & set(sys.modules))); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", program, "txt2img", "a cat", "-m", str(sd1_folder), "-o", str(tmp_path / "a.png"),
                           "--steps", "1", "--quiet"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().endswith("[]"), done


def test_a_picture_needs_no_probe(sd1_folder):
    program = (f"import sys, minisd; minisd.load({str(sd1_folder)!r}).txt2img('a cat', num_inference_steps=1, width=64, height=64)\n"
               "print([m for m in sys.modules if m.startswith(('minisd.probe', 'minisd.cli'))])")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done


def test_only_what_compares_with_a_framework_imports_one():
    for path in (ROOT / "tests").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        found = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
        found |= {n.module.split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
        frameworks = "make_goldens.py", "full_size.py", "search.py", "planted.py", "bench/cpu.py", "bench/gpu.py"
        allowed = path.relative_to(ROOT / "tests").as_posix() in frameworks
        assert allowed or not found & {"torch", "diffusers", "transformers"}


def test_public_names_have_docstrings():
    for name in minisd.__all__:
        assert getattr(minisd, name).__doc__, name
    for name, member in vars(minisd.Pipeline).items():
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            assert member.__doc__, f"Pipeline.{name}"
