"""The shipped kernels' text, and every way in which Stable Diffusion has them compiled."""
from pathlib import Path

KERNELS = Path(__file__).parent.parent / "kernels"
ARCHITECTURES = 75, 80, 90, 120


def devkit():
    return (KERNELS / "devkit.cuh").read_text() + '#line 1 "k.cu"\n'


def variants(cupy, multiprocessors, stages):
    """{(files, defines)} that the layers of SD 1.5 and 2.1, unet and decoder, ask to be launched; nothing is."""
    import layer_sizes

    from minisd.backend import cuda, ops
    asked, launch, device = set(), cuda.launch, cuda.device

    def note(name, files, grid, block, args, shared=0, **defines):
        asked.add((files, tuple(sorted(defines.items()))))

    def like(*shape):
        return cupy.empty(shape, "float16")

    cuda.launch, cuda.device = note, lambda: (80 if stages > 2 else 75, multiprocessors, 227 << 10)
    try:
        for B, N, M, heads, d in [*layer_sizes.ATTENTIONS, *layer_sizes.OTHER_ATTENTIONS]:
            q, k = like(B, N, heads * d), like(B, M, heads * d)
            cuda.attention(q, k, k, heads)
        for B, H, W, C, O in [*layer_sizes.CONVOLUTIONS, (2, 64, 64, 4, 320), (2, 64, 64, 320, 4), (1, 512, 512, 128, 3),
                              (1, 64, 64, 4, 512)]:
            cuda.conv2d(like(B, H, W, C), like(3, 3, C, O), like(O), pad=(1, 1))
        for rows, K, O, geglu in layer_sizes.LINEARS:
            x = like(rows, K)
            cuda.linear_geglu(x, like(O, K), like(O)) if geglu else cuda.linear(x, like(O, K), like(O))
            if not geglu:
                cuda.linears(x, [like(O, K)] * 2)
                cuda.linears(x, [like(O, K)] * 3)
            cuda.linear(x, like(K, O).T, like(O))
            cuda.layer_norm(x[:, :1280], like(min(K, 1280)), like(min(K, 1280)))
        cuda.conv2d(like(1, 64, 64, 4), like(1, 1, 4, 4), like(4))
        cuda.linear(like(2, 1280), like(320, 1280), like(320))
        cuda.group_norm(like(2, 8, 8, 320), like(320), like(320), 32, 1e-5)
        ops.silu(like(2, 1280))
    finally:
        cuda.launch, cuda.device = launch, device
    return asked
