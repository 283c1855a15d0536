"""torch's random numbers; the goldens hold the CPU streams, here are the rules around them and the CUDA stream."""
import numpy as np
import pytest
from golden_checks import Golden

from minisd.diffusion.rng import TorchCPU, TorchCUDA, latent_noise
from minisd.errors import InputError

# torch.randn on a CUDA device, seed 0, as A1111's Philox prints it: two draws of 4, then of 4 more
CUDA_SEED_0 = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564, -0.62285122, -0.32838709,
               -1.07454231, -0.36314407, -1.67105067, 2.26550497]


def test_cuda_stream():
    assert np.abs(TorchCUDA(0).randn((3, 4)).reshape(-1) - np.float32(CUDA_SEED_0)).max() < 1e-6


def test_cuda_stream_moves_on_with_each_draw_and_takes_all_64_bits_of_the_seed():
    g = TorchCUDA(0)
    assert not np.array_equal(g.randn((4,)), g.randn((4,)))
    assert not np.array_equal(TorchCUDA(1).randn((4,)), TorchCUDA(1 + 2**32).randn((4,)))


def test_cpu_stream_takes_the_low_32_bits_of_the_seed():
    assert np.array_equal(TorchCPU(5).randn((20,)), TorchCPU(5 + 2**32).randn((20,)))
    assert np.array_equal(TorchCPU(-1).randn((20,)), TorchCPU(2**64 - 1).randn((20,)))


def test_seed_0_is_a_seed():
    assert np.abs(TorchCPU(0).randn((16,)) - Golden("noise")["0.0"]).max() <= 1e-6


@pytest.mark.parametrize("kind", [TorchCPU, TorchCUDA])
def test_normal(kind):
    x = kind(3).randn((100_000,))
    assert x.dtype == np.float32
    x = x.astype(float)
    assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.01 and abs((x**4).mean() - 3) < 0.1


@pytest.mark.parametrize("seed", [1.5, "7", None, True, 2**64, -2**63 - 1])
def test_what_is_no_seed(seed):
    with pytest.raises(InputError, match="whole number"):
        TorchCPU(seed)


def test_latents_are_drawn_in_the_references_order():
    drawn = TorchCPU(9).randn((2, 4, 3, 5))
    assert np.array_equal(latent_noise(TorchCPU(9), (2, 3, 5, 4)), drawn.transpose(0, 2, 3, 1))


def test_one_generator_a_picture():
    both = latent_noise([TorchCPU(1), TorchCPU(2)], (2, 3, 5, 4))
    assert np.array_equal(both[1:], latent_noise(TorchCPU(2), (1, 3, 5, 4)))
