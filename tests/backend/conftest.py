"""What tests of kernels share: CuPy, or what stands in for it."""
import sys
import zlib

import kernel_checks
import numpy as np
import pytest
from cudaemu import fake, machine


@pytest.fixture(autouse=True)
def drawn_by_name(request):
    """A test draws the same numbers, whichever tests ran before it in its process."""
    begin = np.random.default_rng(zlib.crc32(request.node.name.encode()))
    kernel_checks.RANDOM.bit_generator.state = begin.bit_generator.state


@pytest.fixture(scope="module", params=["emulated", pytest.param("device", marks=pytest.mark.gpu)])
def cupy(request):
    """CuPy, or what stands in for it where there is no GPU."""
    if request.param == "device":
        if getattr(sys.modules.get("cupy"), "ndarray", None) is fake.ndarray:
            pytest.fail("emulated kernels ran before in this process; `pytest -m gpu` runs those on the GPU alone")
        library = pytest.importorskip("cupy", reason="no CuPy; pip install '.[cuda13]'")
        if not library.is_available():
            pytest.skip("CuPy finds no GPU; on a machine with one, this runs")
        if request.config.getoption("--no-pool"):            # each array of its own, so that a checker sees where it ends
            library.cuda.set_allocator(None)
    else:
        if machine.missing():
            pytest.skip(machine.missing())
        library = fake.install()
    import minisd.backend.cuda  # noqa: F401  (registers itself)
    return library


@pytest.fixture
def emulated(cupy):
    if cupy.ndarray is not fake.ndarray:
        pytest.skip("asks the emulator, which runs it on any machine with g++ and NVRTC, as CI is")
    return cupy


@pytest.fixture
def arch(cupy, monkeypatch):
    """set(75) -> from now on the emulated device is of this compute capability, and has this many multiprocessors."""
    from minisd.backend import launch
    if cupy.ndarray is not fake.ndarray:
        return lambda capability, multiprocessors=4: None

    def set(capability, multiprocessors=4):
        monkeypatch.setattr(fake, "ARCH", capability)
        monkeypatch.setattr(fake.Device, "compute_capability", str(capability))
        monkeypatch.setitem(fake.Device.attributes, "MultiProcessorCount", multiprocessors)
        launch.device.cache_clear()
        launch.function.cache_clear()
        launch.module.cache_clear()
    yield set
    monkeypatch.undo()
    launch.device.cache_clear()
    launch.function.cache_clear()
    launch.module.cache_clear()
