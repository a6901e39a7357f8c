"""Reading what a shop sends: folders, tables, the feeds of other systems, buckets."""
