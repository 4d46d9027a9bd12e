"""Loads an object file into the kernel, by libbpf.

Lives here: ``load``, ``load_programs``, and ``LoadError``.
Rules: libbpf only resolves maps and relocations; everything else uses bpf(2) (``syscall``). libbpf
is loaded on demand, by the name of its ABI (Debian: libbpf1). The output of libbpf and of the
kernel's verifier is collected; an error has its last lines.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

_LIBRARY: Final = "libbpf.so.1"
_LOG_SIZE: Final = 1 << 18
_LINES: Final = 3  # of the verifier's log, which ends with the reason
_LINE: Final = 512
_QUIETER: Final = 2  # LIBBPF_DEBUG
_Print = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


class LoadError(Exception):
    """Why a program cannot be loaded: a sentence, and the kernel's error number, 0 without one."""

    def __init__(self, what: str, number: int = 0) -> None:
        super().__init__(what)
        self.number = number


def load(image: bytes, program: str, maps: Mapping[str, int]) -> int:
    """Load one function of an object file, as ``load_programs``; returns its descriptor."""
    return load_programs(image, (program,), maps)[0]


def load_programs(
    image: bytes, programs: Sequence[str], maps: Mapping[str, int]
) -> tuple[int, ...]:
    """Load the functions ``programs`` of the object file ``image`` with the existing ``maps``, by
    name and descriptor; its other maps are new, and the programs share them. Returns the
    descriptors of the functions.

    Raises ``LoadError``: no libbpf, no such program, or the refusal of the kernel with the last
    lines of the verifier.
    """
    library = _open_library()
    said: list[str] = []
    printer = _Print(_collector(said))
    library.libbpf_set_print(printer)
    log = ctypes.create_string_buffer(_LOG_SIZE)
    buffer = ctypes.create_string_buffer(image, len(image))
    name = ctypes.create_string_buffer(b"carrier")
    # struct bpf_object_open_opts: size, name, flags, paths, then the log of the verifier
    options = struct.pack(
        "=2Q5Q2QI4x",
        *(80, ctypes.addressof(name), 0, 0, 0, 0, 0, ctypes.addressof(log), _LOG_SIZE, 0),
    )
    handle = library.bpf_object__open_mem(buffer, len(image), options)
    try:
        if not handle:
            raise LoadError(f"the object file cannot be read: {_last(said) or 'libbpf refuses it'}")
        return _load(library, handle, programs, maps, said, log)
    finally:
        if handle:
            library.bpf_object__close(handle)
        library.libbpf_set_print(_Print())


def _load(
    library: Any,
    handle: int,
    programs: Sequence[str],
    maps: Mapping[str, int],
    said: list[str],
    log: ctypes.Array[ctypes.c_char],
) -> tuple[int, ...]:
    for name, number in maps.items():
        found = library.bpf_object__find_map_by_name(handle, name.encode())
        if not found:
            raise LoadError(f"the object file has no map {name}: it is of another version")
        if library.bpf_map__reuse_fd(found, number) < 0:
            raise LoadError(f"the map {name} cannot be used: {_last(said)}")
    functions = []
    for program in programs:
        function = library.bpf_object__find_program_by_name(handle, program.encode())
        if not function:
            raise LoadError(f"the object file has no program {program}: it is of another version")
        functions.append(function)
    other = library.bpf_object__next_program(handle, None)
    while other:
        library.bpf_program__set_autoload(other, other in functions)
        other = library.bpf_object__next_program(handle, other)
    result = library.bpf_object__load(handle)
    if result < 0:
        why = os.strerror(-result)
        lines = _last(log.value.decode(errors="replace").splitlines(), _LINES) or _last(said)
        raise LoadError(f"the kernel refuses the program: {why}: {lines}", -result)
    return tuple(os.dup(library.bpf_program__fd(function)) for function in functions)


def _open_library() -> Any:
    """libbpf, with the types of the used functions."""
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise LoadError(f"{_LIBRARY} cannot be loaded ({error})", errno.ENOENT) from None
    pointer = ctypes.c_void_p
    types = {
        "libbpf_set_print": (pointer, (_Print,)),
        "bpf_object__open_mem": (pointer, (pointer, ctypes.c_size_t, ctypes.c_char_p)),
        "bpf_object__close": (None, (pointer,)),
        "bpf_object__load": (ctypes.c_int, (pointer,)),
        "bpf_object__find_map_by_name": (pointer, (pointer, ctypes.c_char_p)),
        "bpf_object__find_program_by_name": (pointer, (pointer, ctypes.c_char_p)),
        "bpf_map__reuse_fd": (ctypes.c_int, (pointer, ctypes.c_int)),
        "bpf_object__next_program": (pointer, (pointer, pointer)),
        "bpf_program__set_autoload": (ctypes.c_int, (pointer, ctypes.c_bool)),
        "bpf_program__fd": (ctypes.c_int, (pointer,)),
    }
    for name, (result, arguments) in types.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _collector(said: list[str]) -> Any:
    """libbpf's print function: appends what it prints to ``said``.

    The va_list is passed on as it comes: a pointer, by the calling conventions of x86_64 and
    aarch64.
    """
    formatted = ctypes.CDLL(None).vsnprintf
    formatted.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

    def collect(level: int, text: bytes, arguments: int) -> int:
        if level < _QUIETER:
            line = ctypes.create_string_buffer(_LINE)
            formatted(line, _LINE, text, arguments)
            said.append(line.value.decode(errors="replace").strip())
        return 0

    return collect


def _last(lines: list[str], count: int = 1) -> str:
    """The last ``count`` lines with a message, joined."""
    found = [
        line.strip()
        for line in lines
        if line.strip() and not line.startswith(("processed ", "verification time", "stack depth"))
    ]
    return " / ".join(found[-count:])
