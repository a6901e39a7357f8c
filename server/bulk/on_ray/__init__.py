"""The rows of a feed are brought in on Ray: the stages of the pipeline on the workers of one machine, or of many."""
