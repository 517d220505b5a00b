"""Programs that make one system call that only harms: name -> source.

A filter that lists what is allowed refuses each of them with EPERM before the kernel looks at the
arguments. Any other answer is an escape: `call` then makes the program right. The arguments are
such that a call that succeeds harms nothing: it sets what is already set, asks only, or touches
only FOLDER and the process VICTIM, which the test made. NR has this machine's numbers.
"""

PRELUDE = """
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(name, *args):
    if name not in NR: return
    ctypes.set_errno(0)
    args = [ctypes.c_long(a or 0) if a is None or isinstance(a, int) else a for a in args]
    if libc.syscall(ctypes.c_long(NR[name]), *args) >= 0 or ctypes.get_errno() not in (1, 13, 38):
        escaped()
path = SECRET.encode()
folder = FOLDER.encode()
room = ctypes.create_string_buffer(4096)
pair = (ctypes.c_int * 2)()
"""

# Kind -> its calls, each the arguments of `call`.
CALLS = {
    "signals": r"""
        'kill', VICTIM, 0
        'kill', VICTIM, 9
        'kill', PARENT, 0
        'tkill', VICTIM, 9
        'tgkill', VICTIM, VICTIM, 9
        'tgkill', PARENT, PARENT, 0
        'rt_sigqueueinfo', VICTIM, 9, room
        'rt_tgsigqueueinfo', VICTIM, VICTIM, 9, room
        'pidfd_open', VICTIM, 0
        'pidfd_send_signal', 0, 0, None, 0
        'pidfd_getfd', 0, 0, 0
        'timer_create', 0, None, room
        'timerfd_create', 0, 0
        'signalfd4', -1, room, 8, 0
        'mq_notify', 0, None
        'prctl', 1, 0
        'prctl', 1, 9
    """,
    "signals by fcntl": r"""
        'fcntl', 0, 8, VICTIM
        'fcntl', 0, 8, PARENT
        'fcntl', 0, 10, 9
        'fcntl', 0, 15, room
        'fcntl', 0, 4, 0x2000
        'fcntl', 0, 4, 0
        'fcntl', 0, 1024, 1
        'fcntl', 0, 1026, 1
        'fcntl', 0, 1031, 4096
        'fcntl', 0, 1033, 0
        'ioctl', 0, 0x5452, room
        'ioctl', 0, 0x8901, room
    """,
    "devices": r"""
        'ioctl', 0, 0x5412, b'x'
        'ioctl', 0, 0x541C, b'x'
        'ioctl', 0, 0x40086602, room
        'ioctl', 0, 0x400454CA, room
        'ioctl', 0, 0x5421, room
        'iopl', 0
        'ioperm', 0, 1, 0
        'mknod', folder + b'/x', 0o10600, 0
        'mknodat', -100, folder + b'/x', 0o10600, 0
    """,
    "scheduling": r"""
        'sched_setaffinity', PARENT, 8, b'\xff' * 8
        'sched_setaffinity', VICTIM, 8, b'\1' + b'\0' * 7
        'sched_getaffinity', PARENT, 8, room
        'sched_setscheduler', VICTIM, 5, room
        'sched_setscheduler', PARENT, 0, room
        'sched_setparam', PARENT, room
        'sched_getparam', PARENT, room
        'sched_setattr', VICTIM, room, 0
        'sched_getattr', VICTIM, room, 48, 0
        'sched_getscheduler', PARENT
        'setpriority', 0, VICTIM, 19
        'getpriority', 0, PARENT
        'ioprio_set', 1, VICTIM, 0x6000
        'ioprio_get', 1, PARENT
        'migrate_pages', PARENT, 64, b'\1' + b'\0' * 7, b'\1' + b'\0' * 7
        'move_pages', VICTIM, 0, None, None, None, 0
        'process_madvise', 0, None, 0, 4, 0
        'kcmp', PARENT, VICTIM, 0, 0, 0
        'get_robust_list', PARENT, room, room
        'set_mempolicy', 0, None, 0
        'mbind', 0, 0, 0, None, 0, 0
        'clock_gettime', (~PARENT << 3) | 2, room
    """,
    "limits": r"""
        'prlimit64', VICTIM, 7, b'\1' + b'\0' * 15, None
        'prlimit64', PARENT, 7, None, room
        'prlimit64', 0, 7, b'\x20' + b'\0' * 15, None
        'setrlimit', 7, b'\x20' + b'\0' * 15
        'mlock', 0, 0
        'mlockall', 1
    """,
    "processes": r"""
        'fork',
        'vfork',
        'clone', 17, 0, 0, 0, 0
        'clone', 0x100 | 17, 0, 0, 0, 0
        'clone', 0x10000000 | 17, 0, 0, 0, 0
        'clone', 0x3D0F00 | 0x20000, 0, 0, 0, 0
        'clone', 0x3D0F00 | 0x10000000, 0, 0, 0, 0
        'clone', 0x10F00, 0, 0, 0, 0
        'clone3', room, 88
        'execve', b'/bin/true', None, None
        'execveat', -100, b'/bin/true', None, None, 0
        'ptrace', 16, VICTIM, 0, 0
        'ptrace', 0x4206, VICTIM, 0, 0
        'process_vm_readv', VICTIM, None, 0, None, 0, 0
        'process_vm_writev', VICTIM, None, 0, None, 0, 0
        'process_mrelease', 0, 0
        'setsid',
        'setpgid', 0, 0
        'getpgid', PARENT
        'getsid', PARENT
        'wait4', -1, None, 1, None
    """,
    "users": r"""
        'setuid', 0
        'setgid', 0
        'setreuid', -1, 0
        'setresuid', 0, 0, 0
        'setresgid', 0, 0, 0
        'setfsuid', 0
        'setgroups', 0, None
        'capset', room, room
        'capget', room, room
        'prctl', 4, 1, 0, 0, 0
        'prctl', 8, 1, 0, 0, 0
        'prctl', 22, 2, room, 0, 0
        'prctl', 24, 0, 0, 0, 0
        'prctl', 35, 0, 0, 0, 0
        'prctl', 36, 1, 0, 0, 0
        'prctl', 47, 4, 0, 0, 0
        'prctl', 0x59616D61, PARENT, 0, 0, 0
        'seccomp', 0, 0, None
        'seccomp', 2, 0, room
        'personality', 0xFFFFFFFF
        'arch_prctl', 0x1003, room
        'modify_ldt', 0, room, 16
    """,
    "mounts": r"""
        'mount', None, folder, None, 0x40000, None
        'umount2', folder, 8
        'fsopen', b'tmpfs', 0
        'fsmount', 0, 0, 0
        'fspick', -100, folder, 0
        'fsconfig', 0, 6, None, None, 0
        'move_mount', 0, b'', 0, b'', 0
        'open_tree', -100, folder, 0
        'open_tree', -100, b'/', 1
        'mount_setattr', -100, folder, 0, room, 32
        'statmount', room, room, 64, 0
        'listmount', room, room, 8, 0
        'pivot_root', folder, folder
        'chroot', folder
        'chdir', folder
        'fchdir', 0
        'unshare', 0x20000
        'unshare', 0x10000000
        'unshare', 0x20000000
        'unshare', 0x40000000
        'setns', 0, 0
        'quotactl', 0, None, 0, None
        'swapoff', folder
        'swapon', folder, 0
        'acct', folder
    """,
    "the machine": r"""
        'settimeofday', None, None
        'clock_settime', 0, None
        'adjtimex', room
        'clock_adjtime', 0, room
        'sethostname', b'', -1
        'setdomainname', b'', -1
        'syslog', 10, None, 0
        'reboot', 0, 0, 0, None
        'init_module', None, 0, b''
        'finit_module', -1, b'', 0
        'delete_module', b'none', 0
        'kexec_load', 0, 0, None, 0
        'kexec_file_load', -1, -1, 0, None, 0
        'vhangup',
        'sync',
        'ustat', 0, room
        'sysfs', 3
        'lookup_dcookie', 0, room, 64
    """,
    "keyrings": r"""
        'add_key', b'user', b'passk', b'x', 1, -1
        'request_key', b'user', b'passk', None, 0
        'keyctl', 0, -4, 0
        'keyctl', 1, None
        'keyctl', 11, -4, room, 8
    """,
    "io_uring": r"""
        'io_uring_setup', 1, room
        'io_uring_enter', 0, 0, 0, 0, None, 0
        'io_uring_register', -1, 0, None, 0
        'io_setup', 1, room
        'io_submit', 0, 0, None
    """,
    "userfaultfd": r"""
        'userfaultfd', 1
        'userfaultfd', 0
    """,
    "bpf": r"""
        'bpf', 0, room, 64
        'bpf', 5, room, 64
        'landlock_create_ruleset', None, 0, 1
        'landlock_restrict_self', 0, 0
    """,
    "perf": r"""
        'perf_event_open', room, 0, -1, -1, 0
        'perf_event_open', room, PARENT, -1, -1, 0
    """,
    "memfd": r"""
        'memfd_create', b'x', 0
        'memfd_create', b'x', 3
        'memfd_secret', 0
        'pipe', pair
        'pipe2', pair, 0
        'eventfd2', 0, 0
        'epoll_create1', 0
        'splice', 0, None, 0, None, 0, 0
        'vmsplice', 0, None, 0, 0
        'tee', 0, 0, 0, 0
        'sendfile', 0, 0, None, 0
        'copy_file_range', 0, None, 0, None, 0, 0
        'pkey_alloc', 0, 0
        'remap_file_pages', 0, 0, 0, 0, 0
    """,
    "sockets": r"""
        'socket', 1, 1, 0
        'socket', 1, 2, 0
        'socket', 2, 1, 0
        'socket', 2, 3, 1
        'socket', 10, 1, 0
        'socket', 16, 3, 0
        'socket', 17, 3, 0
        'socket', 38, 5, 0
        'socket', 40, 1, 0
        'socketpair', 1, 1, 0, pair
        'bind', 0, b'\1\0\0passk', 8
        'connect', 0, b'\1\0\0passk', 8
        'sendto', 0, b'x', 1, 0, b'\1\0\0passk', 8
        'sendmsg', 0, room, 0
        'recvmsg', 0, room, 0
    """,
    "shared memory": r"""
        'shmget', 0, 4096, 0o1600
        'shmctl', -1, 0, None
        'shmat', -1, None, 0
        'semget', 0, 1, 0o1600
        'msgget', 0, 0o1600
        'mq_open', b'passk', 0o102, 0o600, None
        'mq_unlink', b'passk'
    """,
    "files": r"""
        'truncate', path, 3
        'ftruncate', 0, 0
        'fallocate', 0, 0, 0, 1
        'creat', folder + b'/x', 0o600
        'openat2', -100, path, room, 24
        'unlink', path
        'unlinkat', -100, path, 0
        'rename', path, folder + b'/x'
        'renameat2', -100, path, -100, folder + b'/x', 0
        'mkdir', folder + b'/x', 0o700
        'rmdir', folder
        'link', path, folder + b'/x'
        'symlink', b'/', folder + b'/x'
        'symlinkat', b'/', -100, folder + b'/x'
        'chmod', path, 0o777
        'fchmodat', -100, path, 0o777
        'fchmodat2', -100, path, 0o777, 0
        'chown', path, -1, -1
        'fchownat', -100, path, -1, -1, 0
        'utime', path, None
        'utimes', path, None
        'utimensat', -100, path, None, 0
        'futimesat', -100, path, None
        'setxattr', path, b'user.x', b'x', 1, 0
        'fsetxattr', 0, b'user.x', b'x', 1, 0
        'setxattrat', -100, path, 0, b'user.x', room, 16
        'getxattr', path, b'user.x', room, 64
        'listxattr', path, room, 64
        'removexattr', path, b'user.x'
        'statfs', path, room
        'fstatfs', 0, room
        'name_to_handle_at', -100, path, room, room, 0
        'open_by_handle_at', -100, room, 0
        'inotify_init1', 0
        'fanotify_init', 0, 0
        'flock', 0, 1
        'fsync', 0
        'syncfs', 0
        'umask', 0
        'cachestat', 0, room, room, 0
        'file_getattr', -100, path, room, 24, 0
    """,
}

PROGRAMS = {
    f"{kind}: {line.strip()}": PRELUDE + "call(" + line.strip() + ")"
    for kind, lines in CALLS.items()
    for line in lines.strip().splitlines()
}
