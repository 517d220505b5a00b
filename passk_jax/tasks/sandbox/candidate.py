"""Runs a program inside the sandbox and answers calls of its functions.

`isolation` gives the text of this file and of `wire` to a bare interpreter (`python -I -S -c`). The
first message says what the process must give up: its user, memory, system calls. It then loads the
program and executes requests: it calls a function, or reads or sets an attribute, and sends back
the result as plain data. It knows no test and no expected value, and its replies are used only as
values.
"""

# ruff: noqa: F821  (`isolation` puts `wire` before this text)
import builtins
import os
import resource
import sys


def guard(seconds):
    """Goes on in a child process, and ends it after some seconds, or when it has ended."""
    import signal
    import time

    child = os.fork()
    if not child:
        return
    os.closerange(0, 64)  # else the child would never see the end of its pipe
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os._exit(0)


def drop_root(uid):
    """Becomes an unprivileged user without capabilities for good; 0 is the user that it is.

    Raises:
      PermissionError: The process is still root, or its user is root outside this user namespace.
    """
    import ctypes

    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    version_3, own_thread, no_sets = 0x20080522, 0, [0] * 6
    header = (ctypes.c_uint32 * 2)(version_3, own_thread)
    ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)(*no_sets))
    try:
        with open("/proc/self/uid_map") as file:
            ranges = [[int(number) for number in line.split()] for line in file]
    except OSError:
        ranges = []
    outside = [own - first + other for first, other, size in ranges
               for own in os.getresuid() if first <= own < first + size]  # fmt: skip
    if 0 in (*os.getresuid(), *outside):
        raise PermissionError("a program would run as root; give it another user")


def die_with_parent(parent):
    """Makes the kernel end this process when its parent ends."""
    import ctypes

    set_death_signal, killed = 1, 9
    ctypes.CDLL(None).prctl(set_death_signal, killed, 0, 0, 0)
    if parent not in (0, os.getppid()):
        os._exit(1)  # the parent ended before this was set


def preload(modules, packages):
    """Imports what the program may import, before the filter may forbid opening files."""
    sys.path.append(packages)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread reserves memory
    for name in modules:
        try:
            __import__(name)
        except ImportError:
            pass  # the program's own import says so
    del os.environ["OPENBLAS_NUM_THREADS"]


def limit(cpu_s, memory_bytes, threads):
    """Limits the resources of this process; 0 sets no limit on the threads of its user."""
    limits = [
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_STACK, 64 * 2**20),
    ]
    for what, value in limits + [(resource.RLIMIT_NPROC, threads)] * bool(threads):
        resource.setrlimit(what, (value, value))


def restrict(bpf, landlock):
    """Forbids system calls for the rest of this process's life, by a compiled seccomp filter.

    With `landlock`, the kernel's Landlock, where it has it, also refuses every file, port and
    signal to others (https://docs.kernel.org/userspace-api/landlock.html).
    """
    import ctypes

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filter_mode = 38, 22, 2
    create, restrict_self, ask_version = 444, 446, 1
    if libc.prctl(no_new_privileges, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    version = libc.syscall(create, None, ctypes.c_size_t(0), ask_version) if landlock else 0
    if version > 0:
        # The accesses that version 1, 2, ... knows. No rule allows any of them.
        files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
        handled = [files] + [0b11] * (version >= 4) + [0b11] * (version >= 6)
        rules = (ctypes.c_uint64 * len(handled))(*handled)
        ruleset = libc.syscall(create, rules, ctypes.c_size_t(ctypes.sizeof(rules)), 0)
        if ruleset < 0 or libc.syscall(restrict_self, ruleset, 0):
            raise OSError(ctypes.get_errno(), "Landlock was refused")
        os.close(ruleset)
    if bpf:
        program = Filter(len(bpf) // 8, bpf)
        if libc.prctl(set_seccomp, filter_mode, ctypes.byref(program), 0, 0):
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
    """Hides the pipes from the program, gives up what the process may do, and serves."""
    inward, outward = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
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

    given = wire.read(receive)
    if given["guard_s"]:
        guard(given["guard_s"])
    try:
        drop_root(given["uid"])
        die_with_parent(given["parent"])
        preload(given["modules"], given["packages"])
        limit(given["cpu_s"], given["memory_mb"] * 2**20, given["threads"])
        restrict(bytes.fromhex(given["filter"]), given["landlock"])
    except Exception as error:
        send(wire.pack({"error": f"{type(error).__name__}: {error}"}))
        return
    send(wire.pack({"value": None}))
    serve(receive, send, wire)


if __name__ == "__main__":
    main()
