"""psqa on MySQL and MariaDB."""
