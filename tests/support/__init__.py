"""What several test modules need: servers, databases, applications, processes, threads."""
