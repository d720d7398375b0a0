"""Opens a file of tensors and sums 1,000 numbers of one: nanoseconds of each round. Arguments: a file, a name, and how many rounds."""
import sys
import time

path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    import numpy
    from safetensors import safe_open
except ImportError as error:
    print(f"missing {error.name}")
    sys.exit()

for _ in range(rounds):
    begun = time.perf_counter_ns()
    with safe_open(path, framework="numpy") as model:
        float(numpy.sum(model.get_slice(name)[:1]))
    print(time.perf_counter_ns() - begun)
