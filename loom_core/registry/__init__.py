"""Finding plugins and commands, and resolving the names that users type."""
