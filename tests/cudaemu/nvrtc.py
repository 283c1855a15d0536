"""NVIDIA's compiler as a library, from PyPI's wheels, on a machine that need not have a GPU."""
import ctypes
import functools
import glob
import os
import re
import subprocess
import sysconfig

OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")        # what CuPy's RawModule passes


class CompileError(Exception):
    """The compiler's own words."""


def folder():
    """Where the wheels have put NVIDIA's files, or None."""
    found = glob.glob(os.path.join(sysconfig.get_paths()["purelib"], "nvidia", "cu1[3-9]"))
    return max(found, default=None)


@functools.cache
def compiler():
    """libnvrtc, or None where its wheel is not installed."""
    found = glob.glob(os.path.join(folder() or "", "lib", "libnvrtc.so.*")) if folder() else []
    return ctypes.CDLL(found[0]) if found else None


@functools.cache
def version():
    major, minor = ctypes.c_int(), ctypes.c_int()
    compiler().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


@functools.cache
def compile(source, arch, ptx=False, options=()):
    """CUDA C++ -> (cubin for sm_<arch>, or PTX as text; the compiler's log)"""
    nvrtc, program = compiler(), ctypes.c_void_p()

    def text(what):
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        held = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, held)
        return held.raw

    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    try:
        flags = [*OPTIONS, *options, f"-I{folder()}/include", *(["-lineinfo", f"-arch=compute_{arch}"] if ptx else [
            "--ptxas-options=-v", f"-arch=sm_{arch}"])]
        failed = nvrtc.nvrtcCompileProgram(program, len(flags), (ctypes.c_char_p * len(flags))(*(f.encode() for f in flags)))
        log = text("ProgramLog").rstrip(b"\0").decode()
        if failed:
            raise CompileError(log)
        return (text("PTX").rstrip(b"\0").decode() if ptx else text("CUBIN")), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def resources(log):
    """The compiler's log -> {kernel: (registers a thread, bytes spilled a thread)}"""
    found = {}
    for name, spilled, registers in re.findall(
            r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", log, re.S):
        found[name] = int(registers), int(spilled)
    return found


def sass(cubin, place):
    """The machine code of a cubin as text, by way of a file in folder `place`; None without NVIDIA's cuobjdump."""
    tool = os.path.join(folder(), "bin", "cuobjdump")
    if not os.path.exists(tool):
        return None
    path = os.path.join(place, "kernel.cubin")
    with open(path, "wb") as file:
        file.write(cubin)
    env = {**os.environ, "PATH": os.path.dirname(tool) + os.pathsep + os.environ["PATH"]}
    return subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True, env=env).stdout
