"""Stable Diffusion XL and its refiner, Turbo, latent consistency models, ControlNet, TAESD, the upscaler, depth: against diffusers."""
import cases
import golden
import pytest
from golden import Golden


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("name", list(cases.RUNS))
def test_run(name, folders):
    """From folders on disk to the latent after all steps; and from the reference's latent to pixels."""
    latent, pixels = golden.compare_run(name, Golden("families"), folders)
    assert latent <= golden.BOUND and pixels <= golden.BOUND, f"{latent:.1e} {pixels:.1e}"


@pytest.mark.parametrize("what", ["lora", "inversion", "handoff"])
def test_xl(what, folders):
    """A LoRA with LDM's names for places, a word in both text encoders, the base's latent handed to the refiner."""
    assert golden.compare_xl(what, Golden("families"), folders) <= golden.BOUND
