"""The operator's commands. Arguments are parsed and results are printed here and nowhere else."""
