"""The catalogue as Parquet files that other programs read, and back."""
