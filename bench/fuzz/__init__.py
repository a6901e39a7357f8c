"""Files that are damaged at random, and files that are built to cost too much: each is read or refused, nothing else."""
