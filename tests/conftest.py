"""What all tests share.  The checkout is tested, in this process (pytest's pythonpath) and in those that tests start."""
import os
from contextlib import nullcontext
from pathlib import Path

import golden_cases
import golden_checks
import pytest

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")]))


def pytest_addoption(parser):
    parser.addoption("--no-pool", action="store_true", help="on a GPU, allocate each array by itself, for compute-sanitizer")
    parser.addoption("--definitions", action="store_true", help="compute with the definitions of ops.py alone, not their fast versions")


@pytest.fixture(scope="session", autouse=True)
def definitions(request):
    """With --definitions, everything but the tests of the fast versions themselves runs without them."""
    from minisd.backend import ops
    with ops.definitions_only() if request.config.getoption("--definitions") else nullcontext():
        yield


@pytest.fixture
def fast_versions():
    """The fast versions, even with --definitions."""
    from minisd.backend import ops
    held, ops._slow = ops._slow, set()
    yield
    ops._slow = held


@pytest.fixture(scope="session")
def sd1_folder(tmp_path_factory):
    """A small SD 1.x model in the diffusers layout, weights drawn by name."""
    return golden_checks.write_pipeline(tmp_path_factory.mktemp("models") / "sd1", "sd1")


@pytest.fixture(scope="session")
def sd1(sd1_folder):
    import minisd
    return minisd.load(sd1_folder)


@pytest.fixture
def sd1_copy(sd1_folder, tmp_path):
    """The same model, to be damaged: files are copied, so that a test may write to them."""
    import shutil
    return shutil.copytree(sd1_folder, tmp_path / "copy")


@pytest.fixture(scope="session", params=list(golden_cases.MODELS))
def model(request):
    return request.param
