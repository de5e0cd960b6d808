"""The programs that time models next to the hardware; they need Python, numpy and the runtime.

They import nothing else of fasternas: these few files are all that reaches a board, as text (see
`host.py`), and nothing of them is written to its disk. They run as two processes. The agent
receives models, keeps them in a folder that goes when it does, and starts timers: fresh processes
that each time the models. Requests are JSON objects, one a line, on standard input; each is
answered by one line:

    {"facts": package, "load": true or absent}    -> {"facts": {...}}
    {"keep": name, "bytes": n} and n raw bytes    -> {"kept": name}
    {"install": [package, ...], "within_s": s}    -> {"installed": folder}
    {"unpack": name}                              -> {"installed": folder}
    {"start": {...}, "program": text}             -> {"ready": {"pinned": ..., "realtime": ...}}
    {"time": index, "discard": n, "repeats": n}   -> {"wall_ms": [...], "cpu_ms": [...], ...}
    {"end": true}                                 and there is no more

Before the first answer there is a line that says which Python runs them (see `BOOTSTRAP`), and
before that whatever a login shell says. Lines that are no JSON objects are passed over.

What a timer is told when it starts is `Start` in the table of backends; its program holds the
backend that loads the models. What goes wrong is answered by {"error": one line}, or, where a timer
died, by {"died": how}. Both processes end when their input ends, so nothing outlives a lost
connection. Python 3.9 is enough.
"""
