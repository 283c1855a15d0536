"""CuPy's own memory pools over the host's memory, on a machine without GPU or driver: a pool takes and splits and gives back memory by
itself, and asks the CUDA runtime for two things alone, which device is the current one and how many there are.

In a process of its own, since `fake.py` stands for CuPy in the others, and before CuPy is imported."""
import ctypes

kept = []                                                    # what CuPy has pointers to, for as long as the process lives


def answer(runtime, name, value):
    """runtime.<name>() is `value` from now on, for compiled modules too, which import the function as a pointer in a capsule."""
    api, capsules = runtime.__pyx_capi__, ctypes.pythonapi
    capsules.PyCapsule_GetName.restype, capsules.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    capsules.PyCapsule_New.restype, capsules.PyCapsule_New.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    declared = capsules.PyCapsule_GetName(api[name])
    if declared != b"int (int __pyx_skip_dispatch)":
        raise RuntimeError(f"CuPy's runtime.{name} is {declared.decode()} now, no longer a function of nothing that gives an int")
    function = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda _: value)
    kept.append((declared, function))
    api[name] = capsules.PyCapsule_New(ctypes.cast(function, ctypes.c_void_p), declared, None)
    setattr(runtime, name, lambda: value)


def cupy_without_gpu():
    """-> CuPy, imported, with one device as far as its memory pools can tell; nothing can be computed."""
    from cupy_backends.cuda.api import runtime
    answer(runtime, "getDevice", 0)
    answer(runtime, "getDeviceCount", 1)
    import cupy
    return cupy


def host_memory(cupy):
    """-> a class in the place of cupy.cuda.Memory: of `limit` bytes, `taken` are held now."""
    class Memory(cupy.cuda.memory.BaseMemory):
        limit, taken = 1 << 40, 0

        def __init__(self, size):
            if Memory.taken + size > Memory.limit:
                raise cupy.cuda.memory.OutOfMemoryError(size, Memory.taken, Memory.limit)
            Memory.taken += size
            self.held = ctypes.create_string_buffer(size)
            self.size, self.device_id, self.ptr = size, 0, ctypes.addressof(self.held)

        def __del__(self):
            if hasattr(self, "held"):
                Memory.taken -= self.size

    return Memory
