"""Runs programs inside the sandbox, each in a process of its own, and answers calls of them.

`isolation` gives the text of this file and of `wire` to a bare interpreter (`python -I -S -c`). The
first message says what it must give up before any program: its user and capabilities. It then
imports what programs usually need, and forks for each program, which costs milliseconds where an
interpreter costs a hundred. The fork gives up its memory, time and system calls, loads the program
and executes requests: it calls a function, or reads or sets an attribute, and sends back the result
as plain data. It knows no test, no expected value and no other program, and its replies are used
only as values.
"""

# ruff: noqa: F821  (`isolation` puts `wire` before this text)
import builtins
import os
import resource
import sys


def guard(idle_s, seconds, judge):
    """Goes on in a child process, and ends it when its time is over or its judge is gone.

    Its time is over after some seconds, or after `idle_s` in which it did not work. The status is
    the child's, as a shell has it.
    """
    import select
    import signal
    import time

    child = os.fork()
    if not child:
        return
    for descriptor in range(64):
        if descriptor != judge:  # else the judge would never see the end of the child's pipe
            os.closerange(descriptor, descriptor + 1)
    poll = select.poll()
    poll.register(judge, select.POLLHUP | select.POLLRDHUP)
    checked, used = time.monotonic(), 0.0
    end = checked + seconds
    while not poll.poll(20):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            status = os.waitstatus_to_exitcode(status)
            os._exit(status if status >= 0 else 128 - status)
        now = time.monotonic()
        if now > min(end, checked + idle_s):
            spent = processor_time(child)
            if now > end or spent - used <= 0.01 * (now - checked):
                break
            checked, used = now, spent
    os.kill(child, signal.SIGKILL)
    os._exit(128 + signal.SIGKILL)


def processor_time(pid):
    """Returns the seconds that a process has worked, 0 if it has ended."""
    import time

    try:
        return time.clock_gettime(~pid << 3 | 2)  # the clock of its work
    except OSError:
        return 0.0


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


def preload(modules):
    """Imports what a program may import, before the filter may forbid opening files."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread reserves memory
    for name in modules:
        try:
            __import__(name)
        except Exception:
            pass  # the program's own import says so
    del os.environ["OPENBLAS_NUM_THREADS"]


def forked(control):
    """Forks for each program, as the judge asks, and returns in the fork: its channel's descriptor.

    A byte on the socket `control` asks: "f", with one end of a channel, for a fork; "u" for the
    processor time that it has used; "e" for its end, after which nothing of it is left, as it can
    start no other process.
    """
    import gc
    import signal
    import socket

    judge, own = socket.socket(fileno=control), os.getpid()
    child = None
    gc.collect()
    gc.freeze()  # else the first collection of each fork would copy all pages
    while True:
        asked, descriptors, _, _ = socket.recv_fds(judge, 1, 1)
        if asked == b"f" and child is None and len(descriptors) == 1:
            child = os.fork()
            if not child:
                judge.detach()
                os.dup2(descriptors[0], control)  # nothing else of this process stays open
                os.closerange(control + 1, 64)
                die_with_parent(own)
                return control
            os.close(descriptors[0])
        elif asked == b"u" and child is not None:
            judge.sendall(wire.pack({"cpu_s": processor_time(child)}))
        elif asked == b"e" and child is not None:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            status, used = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            judge.sendall(wire.pack({"status": status, "cpu_s": used}))
            child = None
        else:  # the judge is gone
            os._exit(0)  # and the kernel ends the fork


def limit(cpu_s, memory_bytes, threads):
    """Limits the resources of this process; 0 sets no limit on the threads of its user."""
    limits = [
        (resource.RLIMIT_CPU, cpu_s, cpu_s + 1),  # SIGXCPU, which says why; then SIGKILL
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_STACK, 64 * 2**20),
    ]
    for what, *values in limits + [(resource.RLIMIT_NPROC, threads)] * bool(threads):
        resource.setrlimit(what, (values[0], values[-1]))


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

    def tell(do, *arguments):
        try:
            do(*arguments)
        except Exception as error:
            send(wire.pack({"error": f"{type(error).__name__}: {error}"}))
            os._exit(1)
        send(wire.pack({"value": None}))

    def begin(given):
        drop_root(given["uid"])
        die_with_parent(given["parent"])
        sys.path.append(given["packages"])
        preload(given["modules"])

    def give_up(own):
        preload(own["modules"])
        limit(own["cpu_s"], own["memory_mb"] * 2**20, given["threads"])
        restrict(bytes.fromhex(given["filter"]), given["landlock"])

    given = wire.read(receive)
    if given["guard_s"]:
        guard(*given["guard_s"], inward)
    tell(begin, given)
    if given["forks"]:
        os.close(outward)
        inward = outward = forked(inward)
    tell(give_up, wire.read(receive))
    try:
        serve(receive, send, wire)
    finally:
        os._exit(1)  # the program broke this; its threads may go on for ever


if __name__ == "__main__":
    main()
