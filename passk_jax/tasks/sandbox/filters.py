"""The seccomp filter: the system calls that a program may make. Everything else is refused.

It is a list of what is allowed, so a call that the kernel learns tomorrow is refused too. CPython
needs these calls to compute, to run threads, and to talk over its pipe. Where an argument decides
what a call can do, only the harmless arguments are allowed.
"""

import errno
import functools
import platform
import tempfile

from passk_jax.errors import ConfigError

MACHINES = {"x86_64": "X86_64", "aarch64": "AARCH64"}

_ALWAYS = """
    brk mmap mprotect mremap munmap madvise
    futex set_robust_list rseq sched_yield getcpu exit exit_group restart_syscall
    read readv write writev pread64 lseek close fstat dup dup2 dup3
    poll ppoll select pselect6
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack alarm getitimer setitimer
    gettimeofday time nanosleep times getrusage
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups
    uname sysinfo getrandom getrlimit getcwd
""".split()

# Where the files are the sandbox's own, and read-only.
_FILES = """
    open openat stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat
    getdents getdents64
""".split()

# What glibc and musl ask for when they start a thread, and musl's CLONE_DETACHED, which does
# nothing. No other flag is allowed: without CLONE_THREAD it is a process, with others a namespace.
_THREAD, _DETACHED = 0x3D0F00, 0x400000
_CLONE3 = 435
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 1030
_TCGETS, _FIOCLEX, _FIONCLEX = 0x5401, 0x5451, 0x5450
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_OWN_CLOCKS = 16  # larger numbers are other processes' clocks

# Call, place of the argument, the values that are allowed.
_BY_VALUE = (
    ("fcntl", 1, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)),
    ("ioctl", 1, (_TCGETS, _FIOCLEX, _FIONCLEX)),
    ("prctl", 0, (_PR_SET_NAME, _PR_GET_NAME)),
    ("sched_getaffinity", 0, (0,)),
    *((f"clock_{name}", 0, range(_OWN_CLOCKS)) for name in ("gettime", "getres", "nanosleep")),
)


class SandboxError(ConfigError):
    """No program can be run safely on this machine in this way. The message says what to do."""


@functools.cache
def compiled(files: bool, machine: str | None = None) -> bytes:
    """Returns the filter as a BPF program.

    A refused call returns EPERM, and Python raises PermissionError. A call of another architecture,
    such as 32-bit x86 or x32, ends the process.

    Args:
      files: Whether the program may open and list files.
      machine: "x86_64" or "aarch64"; None for this machine's.

    Raises:
      SandboxError: pyseccomp or the library libseccomp is missing, or the machine is another one.
    """
    machine = machine or platform.machine()
    if machine not in MACHINES:
        raise SandboxError(f"there is no seccomp filter for {machine}; only for {list(MACHINES)}")
    try:
        import pyseccomp as sc
    except (ImportError, RuntimeError, OSError) as error:
        raise SandboxError(f"the seccomp filter needs pyseccomp and libseccomp2: {error}") from None
    filter_ = sc.SyscallFilter(defaction=sc.ERRNO(errno.EPERM))
    arch = getattr(sc.Arch, MACHINES[machine])
    if arch != sc.system_arch():
        filter_.add_arch(arch)
        filter_.remove_arch(sc.system_arch())
    filter_.set_attr(sc.Attr.ACT_BADARCH, sc.KILL_PROCESS)

    def allow(name: str, *arguments: sc.Arg) -> None:
        if sc.resolve_syscall(arch, name) >= 0:  # aarch64 lacks open, dup2, poll and the like
            filter_.add_rule_exactly(sc.ALLOW, name, *arguments)

    for name in _ALWAYS + (_FILES if files else []):
        allow(name)
    for name, place, values in _BY_VALUE:
        for value in values:
            allow(name, sc.Arg(place, sc.EQ, value))
    allow("clone", sc.Arg(0, sc.MASKED_EQ, ~_DETACHED & (2**64 - 1), _THREAD))
    # The C library then takes clone, whose flags the filter can see.
    filter_.add_rule_exactly(sc.ERRNO(errno.ENOSYS), _CLONE3)
    # getrlimit; 0 is this process, and no new limit is set.
    allow("prlimit64", sc.Arg(0, sc.EQ, 0), sc.Arg(2, sc.EQ, 0))
    with tempfile.TemporaryFile() as file:
        filter_.export_bpf(file)
        file.seek(0)
        return file.read()
