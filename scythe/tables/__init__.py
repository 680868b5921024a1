"""Tables as Arrow and Parquet: made of rows, taken from users, put together, merged."""
