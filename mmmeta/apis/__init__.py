"""What a user calls from Python and what the command lines call."""
