"""Section overlap: steps whose expert exchange is hidden by micro-batches, against the same steps whole and against what would be ideal, in the same run."""

import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_S = 900
SKIPPED = 77


def section_overlap(build_dir):
    """Empty where no namespaces can be made: the program says why."""
    done = subprocess.run([sys.executable, "-B", HERE / "overlap.py", build_dir / "lockstepd"], stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=False)
    if done.returncode == SKIPPED:
        print(f"  {done.stdout.strip()}")
        return {}
    done.check_returncode()
    return json.loads(done.stdout)


SECTIONS = {"overlap": section_overlap}
