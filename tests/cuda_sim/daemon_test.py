#!/usr/bin/env python3
"""Goal    --device of lockstepd: auto takes a device that is there; else it serves on the CPU and says why in one line, and cuda ends with status 2 and the
        reason, whatever the machine lacks. What does not fit into the device's memory is refused with both sizes.
Method  `lockstepd --check` and `--dry-run`, which do all that a start does before ports open, on the simulated runtime and without one."""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

BINARY = pathlib.Path(os.environ["LOCKSTEP_E2E_BINARY"])
SIMULATED = os.environ["LOCKSTEP_SIM_FOLDER"]
LIMIT_SECONDS = 60


def check(device, *options, binary=BINARY, what="--check", **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOCKSTEP_", "CUDA_"))}
    if "LD_LIBRARY_PATH" in environment:
        kept["LOCKSTEP_SIM_MACHINE"] = f"check-{os.getpid()}"  # whose devices no other test has claimed
    command = [binary, what, "--device", device, *options]
    return subprocess.run(command, env={**kept, **environment}, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


class Device(unittest.TestCase):
    def on_the_cpu(self, done, *words):
        self.assertEqual(done.returncode, 0, done.stderr)
        said = [line for line in done.stderr.splitlines() if "computing on cpu: cuda: " in line]
        self.assertEqual(len(said), 1, done.stderr)
        self.assertIn(" info [rank 0/1]", said[0])
        for word in words:
            self.assertIn(word, said[0])

    def refused(self, done, *words):
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stdout, "")
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        for word in ["--device cuda: ", *words]:
            self.assertIn(word, lines[0])

    def both(self, *words, **options):
        self.on_the_cpu(check("auto", **options), *words)
        self.refused(check("cuda", **options), *words)

    def test_the_cpu_is_taken_without_a_word(self):
        done = check("cpu")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")

    def test_a_machine_without_a_driver(self):
        self.both("no usable GPU: CUDA driver version is insufficient", LD_LIBRARY_PATH=SIMULATED, LOCKSTEP_SIM_DEVICES="no-driver")

    def test_a_machine_without_a_device(self):
        self.both("no usable GPU: no CUDA-capable device is detected", LD_LIBRARY_PATH=SIMULATED, LOCKSTEP_SIM_DEVICES="0")

    def test_devices_that_are_hidden(self):
        self.both("no CUDA-capable device", LD_LIBRARY_PATH=SIMULATED, LOCKSTEP_SIM_DEVICES="2", CUDA_VISIBLE_DEVICES="")

    def test_fewer_devices_than_ranks(self):
        mpirun = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "3"}
        done = check("cuda", LD_LIBRARY_PATH=SIMULATED, LOCKSTEP_SIM_DEVICES="2", **mpirun, LOCKSTEP_GROUP_SECRET="x")
        self.refused(done, "this is rank 2 of 3 on this host, and CUDA shows 2 devices")

    def test_fewer_devices_than_ranks_that_are_thought_of(self):
        devices = {"LD_LIBRARY_PATH": SIMULATED, "LOCKSTEP_SIM_DEVICES": "2"}
        self.refused(check("cuda", "--assume-ranks", "3", **devices), "this is rank 2 of 3 on this host, and CUDA shows 2 devices")
        self.assertEqual(check("cuda", "--assume-ranks", "2", **devices).returncode, 0)

    def test_a_communicator_that_is_not_there(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            shutil.copy(BINARY, root / "lockstepd")
            shutil.copytree(BINARY.parent / "model", root / "model")
            (root / "plugins").mkdir()
            shutil.copy(BINARY.parent / "plugins/liblockstep_cuda.so", root / "plugins")
            named = ("--communicator", "nccl", "--assume-ranks", "2")
            devices = {"LD_LIBRARY_PATH": SIMULATED, "LOCKSTEP_SIM_DEVICES": "2", "binary": root / "lockstepd"}
            for what in ("--check", "--dry-run"):
                done = check("cuda", *named, what=what, **devices)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn("--communicator nccl: the NCCL communicator (liblockstep_nccl.so) is not in", done.stderr)
                self.assertEqual(check("cuda", "--assume-ranks", "2", what=what, **devices).returncode, 0)

    def test_a_device_that_is_there_is_taken_and_named(self):
        for device in ("auto", "cuda"):
            done = check(device, LD_LIBRARY_PATH=SIMULATED)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertNotIn("computing on cpu", done.stderr)
            self.assertIn("lockstepd: ok", done.stdout)
            done = check(device, what="--dry-run", LD_LIBRARY_PATH=SIMULATED)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("device   cuda with cuda_sm_90", done.stdout)
            self.assertRegex(done.stdout, r"each device: its rank takes [\d.]+ MiB of 4.0 GiB for weights and KV cache")

    def test_a_machine_without_a_usable_cublaslt_computes_without_it_and_says_so(self):
        done = check("cuda", what="--dry-run", LD_LIBRARY_PATH=SIMULATED)
        self.assertRegex(done.stdout, r"device   cuda with cuda_sm_90\+cublaslt_13\.\d+\.\d+,")
        done = check("cuda", "--batch-invariant", what="--dry-run", LD_LIBRARY_PATH=SIMULATED)
        self.assertRegex(done.stdout, r"device   cuda with cuda_sm_90\+cublaslt_13\.\d+\.\d+\+batch_invariant,")
        with tempfile.TemporaryDirectory() as folder:
            for library in ("libcudart.so.13", "libcuda_twins.so"):
                shutil.copy(pathlib.Path(SIMULATED) / library, folder)
            (pathlib.Path(folder) / "libcublasLt.so.13").write_bytes(b"no library")
            done = check("cuda", what="--dry-run", LD_LIBRARY_PATH=folder)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("device   cuda with cuda_sm_90,", done.stdout)
            (said,) = [line for line in done.stderr.splitlines() if "matrix products are computed by kernels of our own" in line]
            self.assertIn(" warning [rank 0/1]", said)
            self.assertIn("install cuBLAS of CUDA 13", said)

    def test_what_does_not_fit_into_the_devices_memory_is_refused_with_both_sizes(self):
        small = {"LD_LIBRARY_PATH": SIMULATED, "LOCKSTEP_SIM_MEMORY": str(8 << 20)}
        done = check("cuda", **small)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, r"a rank take [\d.]+ MiB, and its device has 8.0 MiB free: start more ranks.* or give less --kv-cache-memory")
        done = check("cuda", what="--dry-run", **small)
        self.assertEqual(done.returncode, 0, "a dry run shows what it would take: " + done.stderr)
        self.assertIn("its device has 8.0 MiB free", done.stderr)
        # More KV cache than the host has memory is no error where the device has its own.
        done = check("cuda", "--kv-cache-memory", "8000G", "--max-num-seqs", "4", LD_LIBRARY_PATH=SIMULATED)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_machine_without_the_plugin_or_with_a_broken_one(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            binary = root / "bin/lockstepd"
            binary.parent.mkdir()
            shutil.copy(BINARY, binary)
            shutil.copytree(BINARY.parent / "model", root / "bin/model")
            self.both("liblockstep_cuda.so", str(root / "bin/plugins"), binary=binary)
            (root / "bin/plugins").mkdir()
            plugin = root / "bin/plugins/liblockstep_cuda.so"
            plugin.write_bytes(b"no library")
            self.both("cannot be loaded", binary=binary)
            plugin.unlink()
            shutil.copy(pathlib.Path(SIMULATED) / "libcudart.so.13", plugin)
            self.both("is no plugin of lockstep", binary=binary)


if __name__ == "__main__":
    unittest.main(verbosity=2)
