"""Runs a program inside the sandbox and answers calls of its functions.

`isolation` starts this file in a bare interpreter (`python -I -S`). It limits itself, loads the
program from the first message, and then executes requests: it calls a function, or reads or sets an
attribute, and sends back the result as plain data. It knows no test and no expected value, and its
replies are used only as values.
"""

import builtins
import os
import resource
import sys

# Modules that programs import. They are loaded first, because the filter may forbid opening files.
PRELOADED = """
    abc array ast base64 binascii bisect calendar cmath collections collections.abc contextlib copy
    csv dataclasses datetime decimal difflib enum fractions functools hashlib heapq html inspect io
    itertools json keyword math numbers operator pprint queue random re secrets statistics string
    struct sys textwrap time traceback types typing unicodedata uuid warnings zlib
""".split()


def limit(cpu_s, memory_bytes):
    """Limits the resources of this process and its children."""
    for what, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_STACK, 64 * 2**20),
    ):
        resource.setrlimit(what, (value, value))


def die_with_parent(parent):
    """Makes the kernel end this process when its parent ends."""
    import ctypes

    set_death_signal, killed = 1, 9
    ctypes.CDLL(None).prctl(set_death_signal, killed, 0, 0, 0)
    if parent not in (0, os.getppid()):
        os._exit(1)  # the parent ended before this was set


def forbid(bpf):
    """Forbids system calls for the rest of this process's life, by a compiled seccomp filter."""
    import ctypes

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    program = Filter(len(bpf) // 8, bpf)
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(
        set_seccomp, filter_mode, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the seccomp filter was refused")


class Program:
    """The program: the names that it defines, and the values that the tests have handles to."""

    def __init__(self, source, wire):
        self.wire = wire
        self.held = []
        self.names = {"__name__": "candidate", "__builtins__": builtins}
        exec(compile(source, "<program>", "exec"), self.names)

    def hold(self, value):
        """Keeps a value that is not plain data, and returns its number."""
        self.held.append(value)
        return len(self.held) - 1

    def answer(self, request):
        """Executes a request and returns the reply."""
        arguments = [self._decode(item) for item in request.get("args", ())]
        keywords = {name: self._decode(item) for name, item in request.get("kwargs", {}).items()}
        target = request["target"]
        subject = self.names[target] if isinstance(target, str) else self.held[target]
        if request["do"] == "call":
            result = subject(*arguments, **keywords)
        elif request["do"] == "get":
            result = getattr(subject, request["name"])
        elif request["do"] == "set":
            result = setattr(subject, request["name"], arguments[0])
        elif request["do"] == "list":
            result = list(subject)
        else:
            result = subject
        return {"value": self.wire.encode(result, self.hold)}

    def _decode(self, data):
        return self.wire.decode(data, self.held.__getitem__)


def serve(receive, send, wire):
    """Answers requests until there are no more."""
    program = None
    while True:
        request = wire.read(receive)
        try:
            if program is None:
                program = Program(request["source"], wire)
                reply = wire.pack({"defines": sorted(name for name in program.names if name)})
            else:
                reply = wire.pack(program.answer(request))
        except BaseException as error:
            kind = type(error).__name__
            try:
                text = f"{kind}: {error}"[:500]
            except BaseException:
                text = kind
            reply = wire.pack({"error": text})
        send(reply)


def main():
    """Hides the pipes from the program, limits the process, and serves."""
    directory, cpu_s, memory_mb = sys.argv[1:4]
    die_with_parent(int(sys.argv[4]))
    sys.path.insert(0, directory)
    import wire

    sys.path.pop(0)
    inward, outward = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    sys.argv[:] = ["program"]
    sys.set_int_max_str_digits(0)

    def receive(count):
        parts = []
        while count:
            part = os.read(inward, count)
            if not part:
                os._exit(0)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def send(data):
        while data:
            data = data[os.write(outward, data) :]

    for name in PRELOADED:
        __import__(name)
    limit(int(cpu_s), int(memory_mb) * 2**20)
    bpf = bytes.fromhex(wire.read(receive)["filter"])
    if bpf:
        forbid(bpf)
    serve(receive, send, wire)


if __name__ == "__main__":
    main()
