"""The base of loom's retrievers, and of strategies that read a context in windows."""
