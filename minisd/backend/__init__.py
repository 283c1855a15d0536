"""Arithmetic: every operation defined once, and fast versions of it for a CPU and a GPU.  Nothing of Stable Diffusion is known here.

ops.py          each operation, so that it is plainly right; the array decides which version of it runs
cpu.py          fast NumPy versions;  convolution.py the convolutions among them;  threads.py what they run on
device.py       where arrays live and networks run;  memory.py how much memory there is
cuda.py         our CUDA kernels in place of the operations;  launch.py compiles and launches them"""
