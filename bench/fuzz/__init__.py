"""Files damaged at random, and files built to cost too much: each is read or refused, nothing else."""
