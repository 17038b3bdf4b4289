"""psqa on PostgreSQL."""
