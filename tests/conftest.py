import os

# Read when torch is first imported: its threads sleep while they wait. Spinning, they take the
# cores from each other on a busy machine, and a step lasts fifty times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
