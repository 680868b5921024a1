"""Arrow and Parquet: makes tables of outcomes, converts the user's tables, and merges them."""
