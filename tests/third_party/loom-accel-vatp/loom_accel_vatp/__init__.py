"""A method by a third party, written from docs/plugins.md."""
