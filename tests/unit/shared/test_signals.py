"""A storm of signals wakes the main thread, loses none, and never locks it up."""

import subprocess
import sys

CODE = """
import os, signal, threading, time
from ftq_shared.signals import Wakeup

wakeup = Wakeup((signal.SIGTERM,), children=True)

def storm():
    for _ in range(20_000):
        os.kill(os.getpid(), signal.SIGCHLD)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=storm).start()
while not wakeup.wait(30.0):
    pass
print("stopped")
"""


def test_a_storm_of_signals() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=30)
    assert done.stdout == "stopped\n", done.stderr


def test_without_a_signal_it_waits_its_time() -> None:
    code = CODE.partition("def storm")[0] + "print(wakeup.wait(0.1), wakeup.stop)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout == "False False\n", done.stderr
