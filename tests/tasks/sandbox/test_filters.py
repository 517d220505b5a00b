"""The seccomp filter, for both machines: its BPF program is run here, call by call."""

import errno
import struct

import pyseccomp as sc
import pytest

from passk_jax.tasks.sandbox import filters

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
I386, ARM = 0x40000003, 0x40000028


def result(bpf, number, arguments=(), arch=AUDIT["x86_64"]):
    """What the kernel would do, by classic BPF's rules (linux/filter.h)."""
    words = [argument & (2**64 - 1) for argument in arguments] + [0] * (6 - len(arguments))
    data = struct.pack("<iIQ6Q", number, arch, 0, *words)
    program = list(struct.iter_unpack("<HBBI", bpf))
    at, value = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x20:  # load a word
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:  # and
            value &= k
        elif code == 0x05:  # jump
            at += k
        elif code == 0x06:  # return
            return k
        else:
            holds = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}
            at += yes if holds[code] else no


@pytest.fixture(params=AUDIT)
def ask(request):
    arch = getattr(sc.Arch, filters.MACHINES[request.param])

    def ask(name, *arguments, files=False):
        number = sc.resolve_syscall(arch, name)
        if number < 0:
            return REFUSE  # this machine has no such call
        return result(
            filters.compiled(files, request.param), number, arguments, AUDIT[request.param]
        )

    return ask


@pytest.mark.parametrize(
    "name", "read write mmap futex exit_group clock_gettime getrandom rt_sigreturn munmap".split()
)
def test_computing_and_talking_is_allowed(ask, name):
    assert ask(name) == ALLOW


@pytest.mark.parametrize(
    "name",
    """execve execveat fork vfork kill tkill tgkill ptrace socket connect bind mount umount2 unshare
    setns bpf perf_event_open userfaultfd keyctl add_key io_uring_setup memfd_create setuid
    setrlimit sched_setaffinity sched_setscheduler ioprio_set migrate_pages kcmp utime setxattr
    getxattr
    open_tree move_mount shmctl settimeofday sethostname swapoff process_vm_writev pidfd_send_signal
    init_module reboot seccomp landlock_create_ruleset timer_create statfs chdir truncate pipe2"""
    .split(),
)  # fmt: skip
def test_the_rest_is_refused(ask, name):
    assert ask(name) == ask(name, files=True) == REFUSE


@pytest.mark.parametrize("name", "open openat stat newfstatat statx readlinkat getdents64".split())
def test_files_are_opened_only_where_they_are_the_sandbox_s_own(ask, name):
    assert ask(name) == REFUSE
    assert ask("openat", files=True) == ask("getdents64", files=True) == ALLOW


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        (("fcntl", 3, 1), True),  # F_GETFD
        (("fcntl", 3, 1030), True),  # F_DUPFD_CLOEXEC
        (("fcntl", 3, 8, 1), False),  # F_SETOWN
        (("fcntl", 3, 10, 9), False),  # F_SETSIG
        (("fcntl", 3, 15), False),  # F_SETOWN_EX
        (("fcntl", 3, 4, 0x2000), False),  # F_SETFL, O_ASYNC
        (("fcntl", 3, 1024), False),  # F_SETLEASE
        (("fcntl", 3, 1026), False),  # F_NOTIFY
        (("fcntl", 3, 2**32 + 1), False),  # the kernel would read F_GETFD
        (("ioctl", 0, 0x5401), True),  # TCGETS
        (("ioctl", 0, 0x5412), False),  # TIOCSTI
        (("prctl", 15), True),  # PR_SET_NAME
        (("prctl", 1, 0), False),  # PR_SET_PDEATHSIG
        (("prctl", 22, 2), False),  # PR_SET_SECCOMP
        (("clone", 0x3D0F00), True),  # a thread of glibc
        (("clone", 0x7D0F00), True),  # and of musl
        (("clone", 17), False),  # SIGCHLD: a process
        (("clone", 0x3D0F00 | 0x10000000), False),  # CLONE_NEWUSER
        (("clone", 0x3D0F00 | 0x20000), False),  # CLONE_NEWNS
        (("clone", 0x3D0F00 & ~0x10000), False),  # without CLONE_THREAD
        (("clone", 0x3D0F00 | 2**40), False),
        (("prlimit64", 0, 7, 0), True),  # asks for its own
        (("prlimit64", 0, 7, 4096), False),  # sets
        (("prlimit64", 77, 7, 0), False),  # asks for another's
        (("sched_getaffinity", 0), True),
        (("sched_getaffinity", 77), False),
        (("clock_gettime", 1), True),
        (("clock_gettime", (~77 << 3) | 2), False),  # the clock of process 77
    ],
)
def test_an_argument_decides(ask, call, allowed):
    assert ask(*call) == (ALLOW if allowed else REFUSE)


def test_the_c_library_is_told_that_there_is_no_clone3(ask):
    # ENOSYS: it then takes clone, whose flags the filter sees; EPERM would end every thread
    assert ask("clone3") == 0x00050000 | errno.ENOSYS


@pytest.mark.parametrize(("machine", "other"), [("x86_64", I386), ("aarch64", ARM)])
@pytest.mark.parametrize("files", [False, True])
def test_another_architecture_ends_the_process(machine, other, files):
    bpf = filters.compiled(files, machine)
    for number in (0, 1, 3, 63, 64):
        assert result(bpf, number, arch=other) == KILL
        # x32: the numbers of x86_64 with a bit more, which reach calls past the list
        if machine == "x86_64":
            assert result(bpf, number | 0x40000000) == KILL


def test_another_machine_is_an_error():
    with pytest.raises(filters.SandboxError, match="no seccomp filter for riscv64; only for"):
        filters.compiled(False, "riscv64")
