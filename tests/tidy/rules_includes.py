"""Which file may include what: layers point downwards, private headers stay private, vendor headers stay at home."""

import re

from repository import Finding

# Lowest first. A folder may include itself and what is before it.
LAYERS = ["core", "device", "comm", "model", "scheduler", "daemon"]

# The seeds' headers lie flat in include/lockstep/; this is the layer that each belongs to.
FLAT_HEADERS = {"forward_context.hpp": "core", "micro_batch.hpp": "device", "microbatcher.hpp": "core"}

# Vendor header -> where it may be included. Tests and benchmarks may include any.
VENDOR_HOMES = [
    (r"mpi\.h$", ["comm/mpi/"]),
    (r"nccl\.h$", ["comm/nccl/"]),
    (r"(oneapi/dnnl/)?dnnl[\w.]*$", ["device/host/"]),
    (r"(cuda\w*|cublas\w*|curand\w*)\.h(pp)?$", ["device/cuda/", "comm/nccl/"]),
    (r"boost/beast\b", ["daemon/"]),
    (r"prometheus/", ["daemon/"]),
    (r"CLI/", ["daemon/"]),
    (r"openssl/", ["comm/peer/", "daemon/"]),
    (r"zlib\.h$", ["daemon/http/encoding/"]),
    (r"(pcre2|utf8proc)\.h$", ["model/"]),
]

# What users of the installed headers must not need to have.
NOT_IN_PUBLIC_HEADERS = re.compile(r"(mpi|nccl|cuda\w*|cublas\w*)\.h$|boost/(beast|json)\b|nlohmann/|(oneapi/dnnl/)?dnnl|prometheus/|openssl/|CLI/|spdlog/")


def layer_of(path):
    """The layer that the file at `path` belongs to; None for tests, benchmarks and what is no C++ folder."""
    parts = path.split("/")
    if parts[0] in LAYERS:
        return parts[0]
    if parts[:2] == ["include", "lockstep"]:
        # include/lockstep/micro_batch/ holds the parts of micro_batch.hpp.
        return FLAT_HEADERS.get(parts[2]) if len(parts) == 3 else FLAT_HEADERS.get(f"{parts[2]}.hpp", parts[2])
    return None


def check(repository):
    for file in repository.code_files:
        yield from check_flat_header(file)
        for line, target, _ in file.includes:
            yield from check_direction(repository, file, line, target)
            yield from check_vendor(file, line, target)


def check_flat_header(file):
    parts = file.path.split("/")
    if file.is_public_header and len(parts) == 3 and parts[2] not in FLAT_HEADERS:
        yield Finding(file.path, 1, "include-direction", f"no layer is known for {parts[2]}: add it to FLAT_HEADERS in tests/tidy/rules_includes.py")


def check_direction(repository, file, line, target):
    own = layer_of(file.path)
    if file.is_test_code or own is None:
        return
    if target.startswith("lockstep/"):
        theirs = layer_of("include/" + target)
        if not repository.exists("include/" + target):
            yield Finding(file.path, line, "include-direction", f"{target} does not exist")
        elif theirs in LAYERS and own in LAYERS and LAYERS.index(theirs) > LAYERS.index(own):
            yield Finding(file.path, line, "include-direction", f"{own} may not include {theirs}, which is above it: pass what you need in from there")
        return
    top = target.split("/")[0]
    if target.startswith(("../", "./")):
        yield Finding(file.path, line, "include-direction", f"{target}: name files from the repository's root")
    elif "/" in target and (top in LAYERS or top in {"tests", "bench"}) and top != own:
        yield Finding(file.path, line, "include-private", f"{target} is private to {top}/: include lockstep/{top}/... instead")
    elif file.is_public_header and top in LAYERS and "/" in target:
        yield Finding(file.path, line, "include-private", f"{target} is private: a public header cannot include it")


def check_vendor(file, line, target):
    if file.is_test_code:
        return
    if file.is_public_header and NOT_IN_PUBLIC_HEADERS.match(target):
        yield Finding(file.path, line, "include-public", f"<{target}> in a public header: declare what is needed, or hide it behind an interface")
        return
    for pattern, homes in VENDOR_HOMES:
        if re.match(pattern, target) and not file.path.startswith(tuple(homes)):
            yield Finding(file.path, line, "include-vendor", f"<{target}> belongs to {' and '.join(homes)}: use our interface to it")
