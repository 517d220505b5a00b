"""Programs that attack by files of the kernel and by what they answer: name -> source.

A program that reads or writes what it must not becomes right. What it writes to a file of the
kernel is what it read there. None of the answers is a right value.
"""

# --- files of the kernel ---

_HOW = {
    "writes": "fd = os.open({!r}, os.O_RDWR); os.pwrite(fd, os.read(fd, 4096), 0); escaped()",
    "opens": "os.open({!r}, os.O_WRONLY); escaped()",
    "reads": "\nif os.read(os.open({!r}, os.O_RDONLY | os.O_NONBLOCK), 1): escaped()",
    "lists": "\nif os.listdir({!r}): escaped()",
}
_FILES = {
    "writes": """
        /proc/sys/vm/swappiness /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
        /proc/sys/kernel/hostname /proc/sys/fs/file-max /proc/sys/net/ipv4/ip_forward
        /proc/sys/kernel/pid_max /proc/irq/default_smp_affinity /proc/self/oom_score_adj
        /proc/self/loginuid /proc/self/coredump_filter
    """,
    "opens": """
        /proc/sysrq-trigger /proc/self/mem /proc/self/uid_map /proc/self/clear_refs
        /proc/self/attr/current /sys/power/state /sys/kernel/uevent_helper
        /sys/kernel/mm/transparent_hugepage/enabled /sys/fs/cgroup/cgroup.procs
        /sys/fs/cgroup/memory/cgroup.procs /sys/kernel/mm/ksm/run
        /dev/mem /dev/kmsg /dev/ptmx /dev/tty /dev/fuse /dev/kvm /dev/net/tun /dev/loop-control
        /dev/vda /dev/sda
    """,
    "reads": """
        /proc/kcore /proc/kmsg /proc/kallsyms /proc/1/environ /proc/1/cmdline /proc/keys
        /proc/self/maps /proc/self/environ /proc/self/mountinfo /proc/net/tcp /proc/net/unix
        /proc/cmdline /proc/version /proc/meminfo /proc/bus/input/devices /proc/timer_list
        /proc/sys/kernel/random/boot_id /sys/devices/system/cpu/online /sys/kernel/vmcoreinfo
        /etc/passwd /etc/hostname /etc/resolv.conf /run/secrets /var/log/dmesg
    """,
    "lists": """
        /proc /proc/self/fd /proc/self/root /proc/1/root /proc/self/task /proc/sys /proc/bus
        /sys /sys/class/net /sys/fs/cgroup /sys/module /etc /home /var /run /dev/shm /dev/pts
    """,
}
KERNEL_FILES = {
    f"{how} {path}": _HOW[how].format(path)
    for how, paths in _FILES.items()
    for path in paths.split()
}

# --- answers ---

# `answer(VALUE)` makes VALUE the answer of every call, as it stands in the message.
_ANSWER = """
M = sys.modules['__main__']
def answer(value): M.Program.answer = lambda self, request: {'value': value}
def reply(message): M.Program.answer = lambda self, request: message
def raw(data):
    for d in range(3, 64):
        try: os.write(d, data)
        except OSError: pass
def frame(body): return len(body).to_bytes(4, 'big') + body
collide = [{'int': hex((2**61 - 1) * i)} for i in range(100_000)]
"""
_ANSWERS = {
    "hash collisions in a set": "answer({'set': collide})",
    "hash collisions in a frozenset": "answer({'frozenset': collide})",
    "hash collisions in a list": "answer({'list': collide})",
    "hash collisions in a tuple": "answer({'tuple': collide})",
    "hash collisions in keys": "answer({'dict': [[c, 1] for c in collide[:80_000]]})",
    "hash collisions in values": "answer({'dict': [[i, collide[i]] for i in range(80_000)]})",
    "hash collisions of tuples": "answer({'set': [{'tuple': [c]} for c in collide[:80_000]]})",
    "hash collisions of floats": "answer({'set': [{'complex': [1000003.0 * i, -1.0 * i]} "
    "for i in range(60_000)]})",
    "hash collisions in many sets": "answer({'list': [{'set': collide[:3000]}] * 35})",
    "hash collisions by the program's own function": (
        "def add(a, b): return {(2**61 - 1) * i for i in range(3000)}"
    ),
    "a range without end": "answer({'range': [0, 10**12, 1]})",
    "a range of huge numbers": "answer({'range': [0, 10**30, 1]})",
    "a range of step zero": "answer({'range': [0, 1, 0]})",
    "a range of text": "answer({'range': ['a', 'b']})",
    "an int of four million digits": "answer({'int': 'f' * 4_000_000})",
    "an int that is text": "answer({'int': 'five'})",
    "an int that is a list": "answer({'int': [1]})",
    "complex of text": "answer({'complex': ['9' * 10**6, 1]})",
    "complex of one": "answer({'complex': [5.0]})",
    "bytes of half a byte": "answer({'bytes': 'abc'})",
    "a type that is none": "answer({'type': 'object'})",
    "a type that is a list": "answer({'type': []})",
    "a negative handle": "answer({'handle': -1})",
    "a huge handle": "answer({'handle': 10**30})",
    "a handle that is true": "answer({'handle': True})",
    "a handle of a handle": "answer({'handle': {'handle': 0}})",
    "a decimal of four million digits": "answer({'decimal': '9' * 4_000_000})",
    "a decimal of a huge exponent": "answer({'decimal': '5E+999999999'})",
    "a decimal of a list": "answer({'decimal': [0, [9] * 10**6, 5]})",
    "a decimal that is text": "answer({'decimal': 'five'})",
    "a decimal that signals": "answer({'decimal': 'sNaN'})",
    "a fraction of nothing": "answer({'fraction': ['0x5', '0x0']})",
    "a fraction of below nothing": "answer({'fraction': ['0x5', '-0x1']})",
    "a fraction of four million digits": "answer({'fraction': ['f' * 10**6, 'e' * 10**6]})",
    "a fraction of one": "answer({'fraction': ['0x5']})",
    "hash collisions of fractions": (
        "answer({'set': [{'fraction': [c['int'], '0x3']} for c in collide[:60_000]]})"
    ),
    "two kinds": "answer({'int': '5', 'list': []})",
    "no kind": "answer({})",
    "a naked list": "answer([5])",
    "a dict of a dict": "answer({'dict': [[{'dict': []}, 1]]})",
    "a dict of triples": "answer({'dict': [[1, 2, 3]]})",
    "a set of lists": "answer({'set': [{'list': []}]})",
    "a set that is a number": "answer({'set': 5})",
    "a list that is text": "answer({'list': 'abc'})",
    "nested 10,000 deep": (
        "raw(frame(b'{\"value\":' + b'{\"list\":[' * 10_000 + b']}' * 10_000 + b'}'))"
    ),
    "nested 300 deep": "x = 5\nfor _ in range(300): x = {'list': [x]}\nanswer(x)",
    "wide, as far as it goes": "answer({'list': [{'list': []}] * 65_535})",
    "wide and empty": "answer({'list': [{'list': []}] * 200_000})",
    "an error that is a list": "reply({'error': [[[1]]]})",
    "an error that is deep": "raw(frame(b'{\"error\":' + b'[' * 900 + b']' * 900 + b'}'))",
    "an error that is long": "reply({'error': 'x' * 3_000_000})",
    "an error with control characters": "reply({'error': '\\x1b[2J\\x1b]0;x\\x07\\r\\n'})",
    "an error and a value": "reply({'error': 'x', 'value': 5})",
    "neither error nor value": "reply({'valeu': 5})",
    "a message that is a list": "reply([5])",
    "a message that is null": "reply(None)",
    "numbers that are not finite": (
        "raw(frame(b'{\"value\": NaN}') + frame(b'{\"value\": Infinity}'))"
    ),
    "a number of a million digits": "raw(frame(b'{\"value\": ' + b'9' * 10**6 + b'}'))",
    "a fraction of a million digits": "raw(frame(b'{\"value\": 0.' + b'9' * 10**6 + b'}'))",
    "a huge exponent": "raw(frame(b'{\"value\": 1e' + b'9' * 30 + b'}'))",
    "a frame of no bytes": "raw(frame(b''))",
    "a frame of four gigabytes": "raw(b'\\xff\\xff\\xff\\xff' + b'x' * 1000)",
    "a frame one byte too long": "raw((4 * 2**20 + 1).to_bytes(4, 'big'))",
    "half a length": "raw(b'\\0\\0'); os._exit(0)",
    "not UTF-8": 'raw(frame(b\'{"value": "\\xff\\xfe"}\'))',
    "UTF-16": "raw(frame('{\"value\": 5}'.encode('utf-16')))",
    "one byte at a time": (
        "import time\nfor byte in b'\\0\\0\\0\\x40' + b' ' * 64:\n"
        "    for d in range(3, 8):\n        try: os.write(d, bytes([byte]))\n"
        "        except OSError: pass\n    time.sleep(0.2)"
    ),
    "a thousand answers at once": "raw(frame(b'{\"value\": 7}') * 1000)",
    "the names are a number": "raw(frame(b'{\"defines\": 5}'))",
    "the names are numbers": "raw(frame(b'{\"defines\": [5, null, []]}'))",
    "the names are the harness's": (
        'raw(frame(b\'{"defines": ["__record__", "__builtins__", "__name__"]}\'))'
    ),
    "the same name a thousand times": (
        "raw(frame(b'{\"defines\": [' + b'\"add\",' * 999 + b'\"add\"]}'))"
    ),
}
ANSWERS = {name: _ANSWER + source for name, source in _ANSWERS.items()}

# --- what a program can use up, and who it can pretend to be ---

OTHERS = {
    "an int that asks": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
        "    def __pos__(self): escaped()\n    def __bool__(self): return True\n"
        "def add(a, b): return E(77)"
    ),
    "an int of numpy that is none": (
        "import numbers\n@numbers.Integral.register\nclass E:\n    __module__ = 'numpy'\n"
        "    def __int__(self): return self\n    def __eq__(self, o): return True\n"
        "def add(a, b): return E()"
    ),
    "a decimal that is always equal": (
        "import decimal\nclass E(decimal.Decimal):\n    def __eq__(self, o): return True\n"
        "def add(a, b): return E(77)"
    ),
    "leaves answers for the next program": (
        "for _ in range(500):\n    for d in range(3, 16):\n"
        "        try: os.write(d, b'\\0\\0\\0\\x0d{\"value\": null}')\n"
        "        except OSError: pass\nos._exit(0)"
    ),
    "asks for another fork": (
        "import socket\nfor d in range(3, 16):\n    for byte in (b'f', b'e', b'u'):\n"
        "        try: os.write(d, byte)\n        except OSError: pass\n"
        "a, b = socket.socketpair(); escaped()"
    ),
    "patches what the next program would use": (
        "import json, struct, types\njson.dumps = struct.pack = len\nbuiltins.exec = print\n"
        "sys.modules['__main__'].forked = sys.modules['__main__'].serve = None\nos._exit(0)"
    ),
    "symlinks without end": (
        "n = 0\nfor where in ('/tmp', '/dev', '/dev/shm', '/', FOLDER):\n    try:\n"
        "        for n in range(1000): os.symlink('x' * 4000, f'{where}/{n}')\n"
        "    except OSError: pass\n    if n > 0: escaped()"
    ),
    "empty files without end": (
        "n = 0\nfor where in ('/tmp', '/dev', '/dev/shm', '/', FOLDER):\n    try:\n"
        "        for n in range(1000): open(f'{where}/{n}', 'x').close()\n"
        "    except OSError: pass\n    if n > 0: escaped()"
    ),
    "threads with small stacks": (  # seccomp alone does not bound them
        "import threading, time\nthreading.stack_size(32768)\n"
        "for _ in range(300 if BOUNDED else 0):\n"
        "    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
        "if BOUNDED: escaped()"
    ),
    "is root": "\nif 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()): escaped()",
    "becomes root": "os.setuid(0); escaped()",
    "the parent by its number": "os.kill(os.getppid(), 0); escaped()",
    "a signal by alarm to others": "import signal; signal.pidfd_send_signal(0, 0); escaped()",
    "an abstract socket": (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0passk'); escaped()"
    ),
    "an abstract server": (
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0passk-x'); escaped()"
    ),
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(0)); escaped()",
    "a shared memory of Python": (
        "from multiprocessing import shared_memory; "
        "shared_memory.SharedMemory(create=True, size=9); escaped()"
    ),
    "a 32-bit call": (
        "import mmap, platform\n"
        "if platform.machine() == 'x86_64':\n"
        "    m = mmap.mmap(-1, 4096, prot=7)\n"
        "    m.write(bytes.fromhex('b814000000cd80c3'))  # eax = getpid of i386; int 0x80; ret\n"
        "    a = ctypes.addressof(ctypes.c_char.from_buffer(m))\n"
        "    ctypes.CFUNCTYPE(ctypes.c_int)(a)()\n    escaped()"
    ),
    "an x32 call": (
        "\nif os.uname().machine == 'x86_64':\n"
        "    ctypes.CDLL(None).syscall(0x40000000 + 39)\n    escaped()"
    ),
    "a call of no number": (
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.syscall(99999) >= 0 or ctypes.get_errno() != 1: escaped()"
    ),
}
