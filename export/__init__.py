import os

# Before torch is imported: its threads otherwise spin while they wait for each other, and where anything else runs on
# the machine a small layer takes as long as the other's turn (1.4 s a picture in place of 0.04, on two busy cores).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
