"""Command lines: options, configuration files, logs and progress."""
