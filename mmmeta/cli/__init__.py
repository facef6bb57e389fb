"""Command lines: arguments, errors in one sentence, exit statuses."""
