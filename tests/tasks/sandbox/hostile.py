"""Programs that want a reward they did not earn, or harm: name -> source.

The task is `add(a, b)`. Where an attack could succeed, the program becomes right exactly if it
does (`escaped()`), so that a reward is an escape; the others hang, die, flood or lie, and are never
right.
SECRET stands for a file of the host that holds the solution, FOLDER for a folder that the host can
write to, PARENT for the harness's process, VICTIM for another process of its user, PORT for a
server of the host, BOUNDED for whether the mode limits threads. Every program runs for real, so
each is such that it harms nothing but FOLDER and VICTIM when it succeeds.
"""

from tests.tasks.sandbox import hostile_calls, hostile_data

PRELUDE = """
import sys, os, builtins, ctypes
def wrong(*args): return "wrong"
add = wrong
def escaped():
    global add
    add = lambda a, b: a + b
"""

LIBC = "libc = ctypes.CDLL(None, use_errno=True)\n"

_PROGRAMS = {
    # never comes back
    "infinite loop": "while True: pass",
    "infinite loop in the call": "def add(a, b):\n    while True: pass",
    "sleeps": "import time; time.sleep(1000)",
    "waits for a lock": "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
    "endless generator": "def add(a, b):\n    while True: yield a",
    "endless iterator": "import itertools\ndef add(a, b): return list(itertools.count())",
    "huge power": "def add(a, b): return 9 ** 9 ** 9 ** 9",
    "catastrophic regular expression": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "sort that never ends": (
        "class C:\n    def __lt__(self, o):\n        while True: pass\n"
        "def add(a, b): return sorted([C(), C()])"
    ),
    "deaf to signals": (
        "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
        "    except Exception: pass\nwhile True: pass"
    ),
    "alarm that starts over": (
        "import signal\ndef again(*a): signal.setitimer(signal.ITIMER_REAL, 0.001)\n"
        "signal.signal(signal.SIGALRM, again); again()\nwhile True: pass"
    ),
    "catches everything for ever": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass"
    ),
    # ends early
    "sys.exit": "sys.exit(0)",
    "sys.exit in the call": "def add(a, b): sys.exit(0)",
    "os._exit": "os._exit(0)",
    "os._exit in the call": "def add(a, b): os._exit(0)",
    "exit at exit": "import atexit; atexit.register(os._exit, 0); sys.exit(0)",
    "raises SystemExit with a verdict": "raise SystemExit('3 passed')",
    "KeyboardInterrupt": "def add(a, b): raise KeyboardInterrupt",
    "an exception without a text": (
        "class E(BaseException):\n    def __str__(self): raise self\ndef add(a, b): raise E"
    ),
    "segmentation fault": "ctypes.string_at(0)",
    "abort": "os.abort()",
    "recursion": "def add(a, b): return add(a, b)",
    "recursion without its limit": (
        "sys.setrecursionlimit(10**9)\ndef f(n): return f(n + 1) + 1\nf(0)"
    ),
    # eats
    "memory, in one piece": "x = bytearray(64 * 2**30)",
    "memory, in pieces": "x = []\nwhile True: x.append(bytearray(10**7))",
    "memory, in a call": "def add(a, b): return [0] * 10**11",
    "disk": "f = open('/tmp/x', 'wb')\nfor _ in range(4000): f.write(b'x' * 10**6)\nescaped()",
    "disk of the host": "f = open(FOLDER + '/x', 'wb'); f.write(b'x' * 10**6); escaped()",
    "output flood": "while True: sys.stdout.write('x' * 10**6); os.write(1, b'x' * 10**6)",
    "error flood": "while True: os.write(2, b'x' * 10**6)",
    "open files": "x = [open('/dev/null') for _ in range(10**5)]; escaped()",
    "threads that never end": (
        "import threading, time\nfor _ in range(3): threading.Thread(target=time.sleep, "
        "args=(1000,)).start()"
    ),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, "
        "args=(1000,)).start()"
    ),
    "spinning threads": (
        "import threading\ndef spin():\n    while True: pass\n"
        "for _ in range(8): threading.Thread(target=spin, daemon=True).start()"
    ),
    # starts others
    "fork": "os.fork(); escaped()",
    "fork bomb": "for _ in range(6): os.fork()\nescaped()",
    "fork that outlives its parent": (
        "import time\nif os.fork() == 0:\n    time.sleep(1000)\nescaped()"
    ),
    "vfork by number": LIBC + "\nif libc.syscall(58) >= 0 or libc.vfork() >= 0: escaped()",
    "os.system": "\nif os.system('true') == 0: escaped()",
    "subprocess": "import subprocess; subprocess.run(['/bin/true'], check=True); escaped()",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {}); escaped()",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'sleep 1000'])",
    "multiprocessing": (
        "import multiprocessing\nmultiprocessing.get_context('fork').Process(target=len, "
        "args=([],)).start(); escaped()"
    ),
    # reads
    "the solution on the host's disk": "add = eval(open(SECRET).read())",
    "the solution, by ctypes": (
        LIBC + "fd = libc.open(SECRET.encode(), 0)\nif fd >= 0: add = eval(os.read(fd, 1000))"
    ),
    "the tests of this project": (
        "sys.path.insert(0, FOLDER)\nimport solution\nadd = solution.add"
    ),
    "the password file of the host": ("\nif 'root:' in open('/etc/passwd').read(): escaped()"),
    "the parent's environment": "\nif open(f'/proc/{PARENT}/environ').read(): escaped()",
    "the parent's memory": "open(f'/proc/{PARENT}/mem', 'rb').read(1); escaped()",
    "other processes' command lines": (
        "\nfor p in os.listdir('/proc'):\n    if p.isdigit() and b'pytest' in "
        "open(f'/proc/{p}/cmdline', 'rb').read(): escaped()"
    ),
    "the environment": "\nif os.environ.get('PASSK_SECRET'): escaped()",
    "the stack": (
        "def add(a, b):\n    f = sys._getframe()\n    while f:\n"
        "        for v in list(f.f_locals.values()) + list(f.f_globals.values()):\n"
        "            if ''.join(['assert ', 'add(2']) in repr(v): return a + b\n"
        "        f = f.f_back\n    return 'wrong'"
    ),
    "every object": (
        "import gc\ndef add(a, b):\n"
        "    for o in gc.get_objects():\n        if isinstance(o, (str, dict, list)) and "
        "''.join(['assert ', 'add(2']) in repr(o): return a + b\n    return 'wrong'"
    ),
    "tracing the parent": LIBC + "\nif libc.ptrace(16, PARENT, 0, 0) == 0: escaped()",
    "the parent's memory, by call": (
        LIBC + "b = ctypes.create_string_buffer(8)\n"
        "class I(ctypes.Structure): _fields_ = [('b', ctypes.c_void_p), ('n', ctypes.c_size_t)]\n"
        "l = I(ctypes.addressof(b), 1); r = I(id(b), 1)\n"
        "if libc.process_vm_readv(PARENT, ctypes.byref(l), 1, ctypes.byref(r), 1, 0) > 0: "
        "escaped()"
    ),
    # kills, and changes the host
    "kills its parent": "os.kill(PARENT, 9)",
    "kills another": "os.kill(VICTIM, 9)",
    "kills another, by a pipe": LIBC
    + (
        "r, w = os.pipe(); libc.fcntl(r, 8, VICTIM); libc.fcntl(r, 10, 9)\n"
        "libc.fcntl(r, 4, 0x2000); os.write(w, b'x')"
    ),
    "outlives its parent": LIBC + "\nif libc.prctl(1, 0) == 0: escaped()",
    "kills the one above": "os.kill(os.getppid(), 9)",
    "signals everyone": "os.kill(-1, 0); escaped()",
    "kills its group": "os.killpg(0, 9)",
    "limits its parent": (
        "import resource; resource.prlimit(PARENT, resource.RLIMIT_CPU, (1, 1)); escaped()"
    ),
    "lifts its limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); escaped()"
    ),
    "deletes": "os.remove(SECRET); escaped()",
    "writes": "open(SECRET, 'w').write('x'); escaped()",
    "makes a folder": "os.mkdir(FOLDER + '/x'); escaped()",
    "links": "os.symlink('/', FOLDER + '/x'); escaped()",
    "mounts": LIBC + "\nif libc.mount(b'none', FOLDER.encode(), b'tmpfs', 0, 0) == 0: escaped()",
    "new namespaces": LIBC + "\nif libc.unshare(0x10000000) == 0: escaped()",
    "changes its root": "os.chroot('/'); escaped()",
    "raises its priority": "os.nice(-20); escaped()",
    # talks
    "a connection": ("import socket; socket.create_connection(('127.0.0.1', PORT), 1); escaped()"),
    "a server": "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); escaped()",
    "a unix socket": "import socket; socket.socket(socket.AF_UNIX); escaped()",
    "a name look-up": "import socket; socket.gethostbyname('localhost'); escaped()",
    # lies
    "prints a verdict": "print('3 passed in 0.01s'); print('{\"reward\": 1.0}')",
    "prints and exits": "print('OK'); sys.stdout.flush(); os._exit(0)",
    "always equal": (
        "class E:\n    def __eq__(self, o): return True\n    def __bool__(self): return True\n"
        "def add(a, b): return E()"
    ),
    "an int that is always equal": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\n"
        "def add(a, b): return E(7777)"
    ),
    "a list that is always equal": (
        "class E(list):\n    def __eq__(self, o): return True\ndef add(a, b): return E()"
    ),
    "a tuple with names that is always equal": (
        "import collections\nclass E(collections.namedtuple('E', 'x')):\n"
        "    def __eq__(self, o): return True\ndef add(a, b): return E(1)"
    ),
    "a class that lies about itself": (
        "class E:\n    __class__ = int\n    def __eq__(self, o): return True\n"
        "def add(a, b): return E()"
    ),
    "a metaclass": (
        "class M(type):\n    def __eq__(self, o): return True\n    __hash__ = type.__hash__\n"
        "class add(metaclass=M):\n    def __init__(self, a, b): pass\n"
        "    def __eq__(self, o): return True"
    ),
    "patches builtins": (
        "for n in ('isinstance', 'bool', 'sum', 'all', 'any', 'abs', 'sorted', 'len'):\n"
        "    setattr(builtins, n, lambda *a, **k: True)"
    ),
    "patches AssertionError": "builtins.AssertionError = type('A', (), {})",
    "patches the exec that runs it": "builtins.exec = lambda *a, **k: None",
    "patches the wire": (
        "m = sys.modules.get('wire') or sys.modules['__main__']\n"
        "m.encode = lambda *a, **k: True\nm.pack = lambda *a, **k: b'\\0\\0\\0\\x04true'"
    ),
    "answers for itself": (
        "m = sys.modules['__main__']\nm.Program.answer = lambda self, r: {'value': True}"
    ),
    "no value in the answer": "sys.modules['__main__'].Program.answer = lambda self, r: {}",
    "a value of no kind": (
        "sys.modules['__main__'].Program.answer = lambda self, r: {'value': {'__reduce__': [1]}}"
    ),
    "a handle that is text": (
        "sys.modules['__main__'].Program.answer = lambda self, r: {'value': {'handle': 'x'}}"
    ),
    "an int with a million digits": (
        "sys.modules['__main__'].Program.answer = lambda self, r: {'value': {'int': 'f' * 10**6}}"
    ),
    "garbage on every descriptor": (
        "for d in range(3, 64):\n    try: os.write(d, b'\\xff' * 64)\n    except OSError: pass"
    ),
    "true on every descriptor": (
        "for d in range(3, 64):\n    try: os.write(d, b'\\0\\0\\0\\x0f{\"value\": true}' * 9)\n"
        "    except OSError: pass"
    ),
    "a frame that never ends": (
        "for d in range(3, 64):\n    try: os.write(d, b'\\0\\x10\\0\\0{')\n    except OSError: pass"
    ),
    "brackets without end": (
        "for d in range(3, 64):\n    try: os.write(d, b'\\0\\0\\x80\\0' + b'[' * 32768)\n"
        "    except OSError: pass"
    ),
    "closes every descriptor": "os.closerange(3, 64)",
    "a value too long": "def add(a, b): return 'x' * 10**8",
    "a value too deep": (
        "def add(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    return x"
    ),
    "a value that holds itself": "def add(a, b):\n    x = []; x.append(x)\n    return x",
    "not a number": "def add(a, b): return float('nan')",
    "an integer of a hundred million bits": "def add(a, b): return 1 << 10**8",
    "a lone surrogate": "def add(a, b): return '\\ud800'",
    # is hardly a program
    "deep parentheses": "x = " + "(" * 5000 + ")" * 5000,
    "a null byte": "x = '\0'",
    "not Python": "def add(a, b) return a",
    "nothing": "",
    "another name": "def plus(a, b): return a + b",
    "a name that cannot be called": "add = 5",
    "wrong number of arguments": "def add(a): return a",
}

PROGRAMS = (
    _PROGRAMS
    | hostile_data.KERNEL_FILES
    | hostile_data.ANSWERS
    | hostile_data.OTHERS
    | hostile_calls.PROGRAMS
)
