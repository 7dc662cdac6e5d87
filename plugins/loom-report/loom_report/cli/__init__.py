"""The commands of loom-report, one file each, imported when they are called."""
