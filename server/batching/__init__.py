"""Who is next: admission control, turns, threads, batches, and the vectors that are known already."""
