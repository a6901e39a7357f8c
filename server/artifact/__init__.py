"""The contract with the export: what lies in an artifact, and whether it does here what it did there."""
