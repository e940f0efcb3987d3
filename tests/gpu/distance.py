"""How far two dumps of `schedc run --dump` are from each other: prints the largest distance of the loss and of any gradient, as the
norm of the difference over the norm of the first file's tensor. Needs nothing but Python."""

import array
import json
import math
import struct
import sys


def tensors(path):
    """Name -> numbers, of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        code = {"F32": "f", "F64": "d"}.get(entry.get("dtype"))
        if code is not None:
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = array.array(code, data[begin:end])
    return found


def distance(expected, found):
    """The norm of the difference over the norm of what is expected; infinite where a number is not finite."""
    if len(expected) != len(found):
        return math.inf
    difference = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(expected, found)))
    norm = math.sqrt(math.fsum(a * a for a in expected))
    if not math.isfinite(difference):
        return math.inf
    if norm == 0.0:
        return 0.0 if difference == 0.0 else math.inf
    return difference / norm


def main():
    expected, found = tensors(sys.argv[1]), tensors(sys.argv[2])
    names = [name for name in expected if name == "loss" or name.startswith("gradient.")]
    if len(names) < 2:
        sys.exit("no gradients in the first file")
    worst, where = max((distance(expected[name], found.get(name, [])), name) for name in names)
    print(f"{worst:.3e}")
    print(f"{where} is farthest: {worst:.3e}", file=sys.stderr)


if __name__ == "__main__":
    main()
