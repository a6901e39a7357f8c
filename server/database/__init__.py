"""What lies beneath all SQL: connections, migrations, locks, named statements, failures in our words."""
