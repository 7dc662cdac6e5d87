"""Prompts: rendering, cutting, rewriting, templates of users, and thinking split off."""
