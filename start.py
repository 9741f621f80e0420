"""Set everything up and run the demo: ``python3 start.py``. With ``--tests``, the tests instead.

What is missing is made: the environment ``.venv`` beside this file, and in it medprobe with all that
the demo or the tests need. A second run finds it made and asks the network for nothing. Nothing
outside this folder is changed. Arguments behind ``--tests`` go to pytest, e.g. ``--tests -m slow``.

The environment is of the Python that runs this file, or of the one that ``PYTHON`` names; ``VENV``
names another folder for it.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = Path(os.environ.get("VENV") or HERE / ".venv").absolute()
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
DEMO = (
    "extract --demo",
    "probe --kind knn --k 200 --size 128",
    "extract --model efficientnet-lite0 --data demo --size 64",
    "probe --kind knn --k 20 --layer all --all-test",
    "probe --kind linear --shots 1,5,10,25",
    "probe.report page --data demo -o demo.html --title 'Three maps of an averaged brain'",
)
OLDEST = (3, 10)  # of pyproject.toml: requires-python


def main(words):
    """Make what is missing, then run the demo or the tests; the exit status of the last command."""
    if not words:
        install(["demo", "report"])
        return demo()
    if words[0] == "--tests":
        install(["demo", "test"])
        return run(PYTHON, HERE / ".ci" / "check", *words[1:])
    print(__doc__)
    return 0 if words[0] in ("-h", "--help") else 2


def demo():
    """Features of the demo's images at two sizes, questions of them, and the page that shows it all."""
    shown = VENV.relative_to(HERE) if VENV.is_relative_to(HERE) else VENV
    activate = shown / "Scripts" / "activate" if os.name == "nt" else f". {shown}/bin/activate"
    print(f"\nThe environment is {shown}; the commands below are in it after\n    {activate}\n")
    for command in DEMO:
        if status := run(PYTHON, "-m", *shlex.split(command)):
            return status
    return 0


def install(extras):
    """Make the environment, and install medprobe with ``extras``, where that isn't done already."""
    wanted = hashlib.sha256((HERE / "pyproject.toml").read_bytes()).hexdigest()
    done = VENV / f"installed-{'-'.join(extras)}"  # holds the pyproject.toml that it was done for
    if PYTHON.exists() and done.exists() and done.read_text(encoding="utf-8") == wanted:
        return
    if not PYTHON.exists():
        python = os.environ.get("PYTHON") or sys.executable
        need(
            python,
            "-c",
            f"import sys; sys.exit(sys.version_info < {OLDEST})",
            why=f"{python} is older than Python 3.10; run this file by a newer one",
        )
        need(
            python,
            "-m",
            "venv",
            VENV,
            why=f"{python} can't make an environment; on Debian and Ubuntu: apt install python3-venv",
        )
    pip = (PYTHON, "-m", "pip", "install")
    failed = "pip failed, see above; the same command goes on from there"
    need(*pip, "--upgrade", "pip", why=failed)
    need(*pip, "--editable", f"{HERE}[{','.join(extras)}]", why=failed)
    done.write_text(wanted, encoding="utf-8")


def run(*words):
    """Show a command, run it in this folder, and return its exit status."""
    print("$", *(os.path.relpath(w, HERE) if isinstance(w, Path) else w for w in words), flush=True)
    # UTF-8 on Windows too, whose own code pages lack some signs of the tables.
    return subprocess.run(
        [str(word) for word in words], cwd=HERE, env={**os.environ, "PYTHONUTF8": "1"}
    ).returncode


def need(*words, why):
    """Run a command without which nothing goes on."""
    if run(*words):
        sys.exit(f"start.py: {why}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
