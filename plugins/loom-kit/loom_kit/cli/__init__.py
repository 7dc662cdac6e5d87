"""The commands of loom-kit, one file each, imported when they are called."""
