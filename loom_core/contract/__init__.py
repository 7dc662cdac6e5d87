"""What everything of loom agrees on: words, errors, keys, protocols, options, specs, hooks, the border of plugins."""
