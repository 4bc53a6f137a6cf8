"""Does a run say how far it is?  A bar where a person looks, a line at times where nobody does, on stderr alone."""

import errno
import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adasplash2.runs.progress import Progress, about, duration

ROOT = Path(__file__).resolve().parents[3]
PASSES = ["bench", "passes", "--spec", "--workload", "equal", "--workload", "ties", "--rows", "2"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Gone(Terminal):
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "nobody reads")


def lines_of(stream):
    return [line.rstrip() for line in re.split(r"[\r\n]", stream.getvalue()) if line.strip()]


def comes_true(condition):
    """Return whether something is so before long; on a busy machine a thread may have to wait."""
    deadline = time.monotonic() + 20.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_bar_moves_by_weight_and_says_what_runs():
    stream = Terminal()
    steps = {"a": "short one", "b": "short two", "c": "long"}
    with Progress("x", steps, weights={"a": 1.0, "b": 1.0, "c": 2.0}, at_once=2, stream=stream) as progress:
        progress.advance("b")
        progress.advance("a")
    lines = lines_of(stream)
    assert lines[0] == f"[{'.' * 12}] 0 of 3 cases, 0 s  short one, short two"
    assert lines[1].startswith(f"[{'#' * 3}{'.' * 9}] 1 of 3 cases, 0 s") and lines[1].endswith("short one, long")
    assert lines[2].startswith(f"[{'#' * 6}{'.' * 6}] 2 of 3 cases") and lines[2].endswith("  long")
    # The line is left empty, and no control sequence is needed for it.
    assert stream.getvalue().endswith("\r" + " " * len(stream.getvalue().split("\r")[-2]) + "\r")
    assert "\x1b" not in stream.getvalue() and max(map(len, lines)) < 80


def test_a_long_step_does_not_look_like_a_halt():
    stream = Terminal()
    with Progress("x", {0: "long"}, every_s=0.02, stream=stream):
        assert comes_true(lambda: len(lines_of(stream)) >= 3)


def test_a_note_stays_above_the_bar():
    stream = Terminal()
    with Progress("x", {0: "one", 1: "two"}, stream=stream) as progress:
        progress.advance()
        progress.note("one took long")
    assert re.search(r"\r +\rone took long\n\r\[", stream.getvalue())


def test_where_it_is_piped_a_line_comes_at_times_and_a_short_run_is_silent():
    stream = io.StringIO()
    with Progress("adasplash2 verify", {0: "one", 1: "two"}, every_s=0.05, stream=stream) as progress:
        progress.advance()
        assert comes_true(lambda: stream.getvalue().count("\n") >= 2)
    lines = stream.getvalue().splitlines()
    said = re.compile(r"adasplash2 verify: 1 of 2 cases, \d+ s(, about \d+ s left)?; now two")
    assert all(said.fullmatch(line) for line in lines)
    stream = io.StringIO()
    with Progress("adasplash2 verify", {0: "one"}, stream=stream) as progress:
        progress.advance()
    assert stream.getvalue() == ""


def test_the_time_left_counts_down_and_is_left_out_when_it_is_over(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    progress = Progress("x", dict.fromkeys(range(4), ""), stream=io.StringIO())
    assert progress.text() == "0 of 4 cases, 0 s"
    now = 10.0
    progress.advance()
    assert progress.text() == "1 of 4 cases, 10 s, about 30 s left"
    now = 15.0
    assert progress.text() == "1 of 4 cases, 15 s, about 25 s left"
    now = 500.0
    assert progress.text() == "1 of 4 cases, 8 min 20 s"
    assert duration(99.9) == "99 s" and duration(125.0) == "2 min 05 s" and about(125.0) == "2 min"


def test_a_reader_that_leaves_ends_the_progress_and_not_the_run():
    with Progress("x", {0: "one"}, stream=Gone()) as progress:
        progress.advance()
        progress.note("lost")
    closed = Terminal()
    closed_progress = Progress("x", {0: "one"}, stream=closed)
    closed.close()
    with closed_progress as progress:
        progress.advance()


def spawn(arguments, **options):
    command = [sys.executable, "-m", "adasplash2", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, **options)


def test_a_pipe_gets_results_alone_and_no_progress():
    child = spawn([*PASSES, "--length", "7"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 0 and err == ""
    assert out.startswith("Passes at alpha 1.5, mean / most\n") and "ties" in out


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_terminal_gets_a_bar_on_stderr_as_wide_as_it_is():
    import fcntl
    import struct
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    child = spawn([*PASSES, "--length", "7"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    out, _ = child.communicate(timeout=120)
    drawn = [line for line in seen.decode().split("\r") if line.strip()]
    assert child.returncode == 0 and out.startswith("Passes at alpha 1.5") and "#" not in out
    assert drawn[0].startswith("[....") and "0 of 4 kinds" in drawn[0]
    assert any("####] 4 of 4 kinds" in line for line in drawn) and all(len(line.rstrip("\n")) < 60 for line in drawn)
    assert seen.endswith(b"\r") and "\x1b" not in seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs the pipes of Unix")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["verify", "--help"], ["verify", "--list"], [*PASSES, "--length", "7"]]
)
def test_a_reader_that_leaves_early_is_no_traceback(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    child = spawn(arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = child.communicate(timeout=120)
    # argparse itself ignores that its help is not read
    assert child.returncode in ((0, 141) if "--help" in arguments else (141,)) and err == ""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs a disk that is full")
def test_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        child = spawn(["verify", "--list"], stdout=full, stderr=subprocess.PIPE)
        _, err = child.communicate(timeout=120)
    assert child.returncode == 1 and err == "adasplash2: the output cannot be written: No space left on device.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs the pipes of Unix")
def test_files_are_written_though_nobody_reads_the_table(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    plot = tmp_path / "passes.svg"
    pytest.importorskip("matplotlib")
    arguments = [*PASSES, "--length", "7", "--json", str(tmp_path / "passes.json"), "--plot", str(plot)]
    child = spawn(arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 141 and err == ""
    assert plot.stat().st_size > 1000 and (tmp_path / "passes.json").is_file()
